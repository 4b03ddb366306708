//! A proxy between broker and consumer that tampers with PUBLISH packets (MQTT 3.1.1, QoS 0) and notes what it did.
//!
//! It reads stamps with its own few lines, so that a mistake in the code under test cannot hide itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::wait;

/// How much to tamper. Packets are picked in turn while these last, never within the first and last of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    /// Swallow so many packets.
    pub delete: usize,
    /// Send so many twice.
    pub double: usize,
    /// Exchange so many with the packet after them.
    pub swap: usize,
    /// Keep so many for `hold_for`, then send them.
    pub hold: usize,
    /// How long.
    pub hold_for: Duration,
}

/// What was done, by (epoch, sequence).
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// Swallowed, by epoch.
    pub deleted: BTreeMap<u64, BTreeSet<u64>>,
    /// Sent twice.
    pub doubled: usize,
    /// Exchanged.
    pub swapped: usize,
    /// Held back, and sent later.
    pub held: usize,
}

/// The proxy, listening on a port of its own.
#[derive(Debug)]
pub struct Proxy {
    /// Where consumers connect.
    pub port: u16,
    notes: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    plan: Plan,
    seen: usize,
    notes: Notes,
}

#[derive(Clone, Copy, PartialEq)]
enum Deed {
    Pass,
    Delete,
    Double,
    Swap,
    Hold,
}

impl Proxy {
    /// Starts it in front of a broker on `broker_port`.
    pub fn start(broker_port: u16, plan: Plan) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the proxy");
        let port = listener.local_addr().expect("address").port();
        let notes = Arc::new(Mutex::new(State {
            plan,
            ..State::default()
        }));
        let state = Arc::clone(&notes);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(broker) = TcpStream::connect(("127.0.0.1", broker_port)) else {
                    continue;
                };
                let state = Arc::clone(&state);
                thread::spawn(move || serve(client, broker, &state));
            }
        });
        Proxy { port, notes }
    }

    /// What was done so far.
    pub fn notes(&self) -> Notes {
        self.notes.lock().expect("notes").notes.clone()
    }
}

fn serve(client: TcpStream, broker: TcpStream, state: &Arc<Mutex<State>>) {
    let _ = client.set_nodelay(true);
    let _ = broker.set_nodelay(true);
    let (mut upward_in, mut upward_out) = (client.try_clone().expect("clone"), broker.try_clone().expect("clone"));
    thread::spawn(move || {
        let _ = std::io::copy(&mut upward_in, &mut upward_out);
        let _ = upward_out.shutdown(Shutdown::Both);
    });
    let (sender, receiver) = mpsc::channel::<Vec<u8>>();
    let mut downward = client.try_clone().expect("clone");
    thread::spawn(move || {
        while let Ok(packet) = receiver.recv() {
            if downward.write_all(&packet).is_err() {
                return;
            }
        }
    });
    tamper(broker, &sender, state);
    drop(sender);
    let _ = client.shutdown(Shutdown::Both);
}

fn tamper(mut broker: TcpStream, sender: &mpsc::Sender<Vec<u8>>, state: &Arc<Mutex<State>>) {
    let mut swapped: Option<Vec<u8>> = None;
    while let Some(packet) = read_packet(&mut broker) {
        let stamp = (packet[0] >> 4 == 3).then(|| stamp(&packet)).flatten();
        let deed = match stamp {
            Some((epoch, sequence)) if swapped.is_none() => choose(state, epoch, sequence),
            _ => Deed::Pass,
        };
        let send = |packet: Vec<u8>| {
            let _ = sender.send(packet);
        };
        match deed {
            Deed::Delete => {}
            Deed::Double => {
                send(packet.clone());
                send(packet);
            }
            Deed::Swap => swapped = Some(packet),
            Deed::Hold => {
                let (sender, after) = (sender.clone(), state.lock().expect("state").plan.hold_for);
                thread::spawn(move || {
                    let begun = wait::now();
                    wait::until("the time to let go", after + Duration::from_secs(5), || {
                        begun.elapsed() >= after
                    });
                    let _ = sender.send(packet);
                });
            }
            Deed::Pass => {
                send(packet);
                swapped.take().into_iter().for_each(send);
            }
        }
    }
}

/// Every seventh packet is up for something; deletions come in pairs, so that ranges longer than one occur.
fn choose(state: &Mutex<State>, epoch: u64, sequence: u64) -> Deed {
    let mut state = state.lock().expect("state");
    state.seen += 1;
    let (turn, second_of_pair) = (state.seen / 7, state.seen % 7 == 1);
    if sequence < 5 || state.seen % 7 > 1 {
        return Deed::Pass;
    }
    let plan = state.plan;
    let deleted: usize = state.notes.deleted.values().map(BTreeSet::len).sum();
    let deed = match turn % 4 {
        0 if deleted < plan.delete => Deed::Delete,
        _ if second_of_pair => Deed::Pass,
        1 if state.notes.doubled < plan.double => Deed::Double,
        2 if state.notes.swapped < plan.swap => Deed::Swap,
        3 if state.notes.held < plan.hold => Deed::Hold,
        _ => Deed::Pass,
    };
    match deed {
        Deed::Pass => {}
        Deed::Delete => {
            state.notes.deleted.entry(epoch).or_default().insert(sequence);
        }
        Deed::Double => state.notes.doubled += 1,
        Deed::Swap => state.notes.swapped += 1,
        Deed::Hold => state.notes.held += 1,
    }
    deed
}

/// Epoch and sequence of the first text stamp in a packet.
pub fn stamp(packet: &[u8]) -> Option<(u64, u64)> {
    let at = packet.windows(5).position(|window| window == b"isc1.")?;
    let bytes = URL_SAFE_NO_PAD.decode(packet.get(at + 5..at + 69)?).ok()?;
    let number = |from: usize| Some(u64::from_be_bytes(bytes.get(from..from + 8)?.try_into().ok()?));
    Some((number(4)?, number(12)?))
}

fn read_packet(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut packet = vec![0; 1];
    stream.read_exact(&mut packet).ok()?;
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        packet.push(byte[0]);
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let head = packet.len();
    packet.resize(head + length, 0);
    stream.read_exact(&mut packet[head..]).ok()?;
    Some(packet)
}
