//! A TCP proxy that cuts connections, and keeps what clients sent.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

pub struct Proxy {
    pub port: u16,
    /// What each connection's client sent, in order.
    pub sent: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Connections that are still to be cut.
    pub cuts: Arc<AtomicUsize>,
}

impl Proxy {
    /// Cuts the first `cuts` connections after some bytes of the client, at most `span`, a different number every time.
    pub fn start(broker: SocketAddr, cuts: usize, span: usize) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let sent = Arc::new(Mutex::new(Vec::new()));
        let left = Arc::new(AtomicUsize::new(cuts));
        let proxy = Proxy {
            port,
            sent: sent.clone(),
            cuts: left.clone(),
        };
        thread::spawn(move || {
            for (number, client) in listener.incoming().flatten().enumerate() {
                let Ok(server) = TcpStream::connect(broker) else {
                    continue;
                };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                sent.lock().unwrap().push(Vec::new());
                let cut = left.load(Ordering::Relaxed) > 0;
                // Early, late, and also in the middle of frames and of the handshake.
                let limit = if cut { 20 + (number * 7919) % span } else { usize::MAX };
                let sent = sent.clone();
                let left = left.clone();
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || {
                    let mut passed = 0;
                    let mut buffer = [0; 4096];
                    while let Ok(read) = from.read(&mut buffer) {
                        let taken = read.min(limit - passed);
                        if read == 0 || to.write_all(&buffer[..taken]).is_err() {
                            break;
                        }
                        passed += taken;
                        sent.lock().unwrap()[number].extend_from_slice(&buffer[..taken]);
                        if passed == limit {
                            left.fetch_sub(1, Ordering::Relaxed);
                            break;
                        }
                    }
                    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
                });
                thread::spawn(move || {
                    let (mut from, mut to) = (server, client);
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
                });
            }
        });
        proxy
    }
}
