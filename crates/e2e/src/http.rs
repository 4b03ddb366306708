//! One HTTP request at a time over a plain socket, and a proxy that misbehaves as told.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use flate2::read::GzDecoder;
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};

use crate::wait;

const PATIENCE: Duration = Duration::from_secs(30);

/// A message of HTTP: the first line, headers with names in lower case, a body.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// `POST /_bulk HTTP/1.1`, or `HTTP/1.1 200 OK`.
    pub first: String,
    /// In their order.
    pub headers: Vec<(String, String)>,
    /// As sent.
    pub body: Vec<u8>,
}

impl Message {
    /// The status of an answer.
    pub fn status(&self) -> u16 {
        let word = self.first.split(' ').nth(1);
        word.and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as JSON; `null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    fn read(stream: &mut impl BufRead) -> Option<Message> {
        let mut line = || {
            let mut text = String::new();
            let read = stream.read_line(&mut text).ok()?;
            (read > 0).then(|| text.trim_end().to_owned())
        };
        let first = line()?;
        let mut headers = Vec::new();
        loop {
            let header = line()?;
            if header.is_empty() {
                break;
            }
            let (name, value) = header.split_once(':')?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut message = Message {
            first,
            headers,
            body: Vec::new(),
        };
        if let Some(length) = message.header("content-length").and_then(|text| text.parse().ok()) {
            message.body = vec![0; length];
            stream.read_exact(&mut message.body).ok()?;
        } else if message.header("transfer-encoding") == Some("chunked") {
            message.body = read_chunks(stream)?;
            message.headers.retain(|(name, _)| name != "transfer-encoding");
        }
        Some(message)
    }

    fn write(&self, stream: &mut impl Write) -> std::io::Result<()> {
        write!(stream, "{}\r\n", self.first)?;
        for (name, value) in self.headers.iter().filter(|(name, _)| name != "content-length") {
            write!(stream, "{name}: {value}\r\n")?;
        }
        write!(stream, "content-length: {}\r\n\r\n", self.body.len())?;
        stream.write_all(&self.body)?;
        stream.flush()
    }
}

/// One request to a local port, with a JSON body unless it is empty; `None` when nobody answers.
pub fn request(port: u16, method: &str, path: &str, body: &str) -> Option<Message> {
    let mut headers = Vec::new();
    if !body.is_empty() {
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
    }
    exchange(
        port,
        &Message {
            first: format!("{method} {path} HTTP/1.1"),
            headers,
            body: body.into(),
        },
    )
}

fn exchange(port: u16, message: &Message) -> Option<Message> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut message = message.clone();
    let hop = ["host", "connection", "accept-encoding"];
    message.headers.retain(|(name, _)| !hop.contains(&name.as_str()));
    message.headers.push(("host".to_owned(), "localhost".to_owned()));
    message.headers.push(("connection".to_owned(), "close".to_owned()));
    message.write(&mut stream).ok()?;
    Message::read(&mut BufReader::new(stream))
}

/// Each piece follows its length in hexadecimal digits; one of no length ends it.
fn read_chunks(stream: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        stream.read_line(&mut size).ok()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        let start = body.len();
        body.resize(start + size, 0);
        stream.read_exact(&mut body[start..]).ok()?;
        stream.read_line(&mut String::new()).ok()?;
        if size == 0 {
            return Some(body);
        }
    }
}

/// What the proxy does with one bulk request.
#[derive(Clone, Debug)]
pub enum Deed {
    /// Hands it on.
    Pass,
    /// Answers itself, with this status and body.
    Answer(u16, Value),
    /// Hands it on and cuts the connection instead of answering.
    LoseAnswer,
    /// Cuts the connection before anything is handed on.
    Cut,
    /// Hands every second document on; the others get this status.
    FailHalf(u16),
    /// Hands it on after a while.
    Delay(Duration),
}

/// A proxy before a local port. Requests other than `_bulk` pass.
#[derive(Debug)]
pub struct HttpProxy {
    /// Where it listens.
    pub port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    script: VecDeque<Deed>,
    bulks: Vec<Message>,
    others: Option<(u16, Value)>,
}

impl HttpProxy {
    /// The first bulk requests meet the deeds of the script, the others pass.
    pub fn start(server: u16, script: impl IntoIterator<Item = Deed>) -> HttpProxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the proxy");
        let port = listener.local_addr().expect("address").port();
        let state = Arc::new(Mutex::new(State {
            script: script.into_iter().collect(),
            bulks: Vec::new(),
            others: None,
        }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(client, server, &shared));
            }
        });
        HttpProxy { port, state }
    }

    /// `http://…`
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// More deeds, after those that are left.
    pub fn then(&self, script: impl IntoIterator<Item = Deed>) {
        self.state.lock().expect("state").script.extend(script);
    }

    /// What requests other than `_bulk` are answered from now on; `None`: they pass.
    pub fn answer_others(&self, answer: Option<(u16, Value)>) {
        self.state.lock().expect("state").others = answer;
    }

    /// Deeds that are left.
    pub fn left(&self) -> usize {
        self.state.lock().expect("state").script.len()
    }

    /// The bulk requests so far.
    pub fn bulks(&self) -> Vec<Message> {
        self.state.lock().expect("state").bulks.clone()
    }
}

fn serve(client: TcpStream, server: u16, state: &Mutex<State>) {
    let mut reader = BufReader::new(client.try_clone().expect("clone"));
    let mut writer = client;
    while let Some(request) = Message::read(&mut reader) {
        let Some(answer) = answer(&request, server, state) else {
            let _ = writer.shutdown(Shutdown::Both);
            return;
        };
        if answer.write(&mut writer).is_err() {
            return;
        }
    }
}

fn answer(request: &Message, server: u16, state: &Mutex<State>) -> Option<Message> {
    let deed = {
        let mut state = state.lock().expect("state");
        if request.first.contains("/_bulk") {
            state.bulks.push(request.clone());
            state.script.pop_front().unwrap_or(Deed::Pass)
        } else {
            let answer = state.others.clone();
            answer.map_or(Deed::Pass, |(status, body)| Deed::Answer(status, body))
        }
    };
    match deed {
        Deed::Pass => exchange(server, request),
        Deed::Answer(status, body) => Some(made(status, &body)),
        Deed::LoseAnswer => {
            let _ = exchange(server, request);
            None
        }
        Deed::Cut => None,
        Deed::FailHalf(status) => fail_half(request, server, status),
        Deed::Delay(time) => {
            let begun = wait::now();
            wait::until("the time to hand a request on", time + PATIENCE, || {
                begun.elapsed() >= time
            });
            exchange(server, request)
        }
    }
}

/// Speaks TLS and hands requests on to a local port that does not.
#[derive(Debug)]
pub struct TlsFront {
    /// Where it listens.
    pub port: u16,
}

impl TlsFront {
    /// With `<stem>.pem` and `<stem>.key` of a folder.
    pub fn start(server: u16, folder: &Path, stem: &str) -> TlsFront {
        let read = |end: &str| folder.join(format!("{stem}.{end}"));
        let certificates = CertificateDer::pem_file_iter(read("pem")).expect("certificate file");
        let chain = certificates.map(|certificate| certificate.expect("certificate"));
        let key = PrivateKeyDer::from_pem_file(read("key")).expect("key file");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_no_client_auth()
            .with_single_cert(chain.collect(), key)
            .expect("a certificate and its key");
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for TLS");
        let port = listener.local_addr().expect("address").port();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let connection = ServerConnection::new(Arc::clone(&config)).expect("TLS");
                thread::spawn(move || serve_tls(StreamOwned::new(connection, client), server));
            }
        });
        TlsFront { port }
    }
}

fn serve_tls(stream: StreamOwned<ServerConnection, TcpStream>, server: u16) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = Message::read(&mut stream) {
        let Some(answer) = exchange(server, &request) else {
            return;
        };
        if answer.write(stream.get_mut()).is_err() {
            return;
        }
    }
}

fn made(status: u16, body: &Value) -> Message {
    Message {
        first: format!("HTTP/1.1 {status} Made"),
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: body.to_string().into(),
    }
}

/// The lines of a bulk request, unpacked.
pub fn lines(request: &Message) -> Vec<String> {
    let mut text = String::new();
    let read = match request.header("content-encoding") {
        Some("gzip") => GzDecoder::new(&request.body[..]).read_to_string(&mut text),
        _ => (&request.body[..]).read_to_string(&mut text),
    };
    read.expect("lines");
    text.lines().map(str::to_owned).collect()
}

fn fail_half(request: &Message, server: u16, status: u16) -> Option<Message> {
    let lines = lines(request);
    let documents: Vec<_> = lines.chunks(2).collect();
    let kept = documents.iter().step_by(2).map(|lines| lines.join("\n") + "\n");
    let mut half = request.clone();
    half.headers.retain(|(name, _)| name != "content-encoding");
    half.body = kept.collect::<String>().into();
    let answer = exchange(server, &half)?.json();
    let mut answered = answer["items"].as_array().cloned().unwrap_or_default().into_iter();
    let failed =
        json!({"create": {"status": status, "error": {"type": "es_rejected_execution_exception", "reason": "made"}}});
    let items: Vec<_> = (0..documents.len())
        .map(|at| {
            if at % 2 == 0 {
                answered.next()
            } else {
                Some(failed.clone())
            }
        })
        .collect();
    Some(made(200, &json!({"errors": true, "items": items})))
}
