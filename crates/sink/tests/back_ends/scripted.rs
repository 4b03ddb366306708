//! An HTTP server that answers as it is told and remembers what it was sent.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Ends with the test's runtime.
pub struct Scripted {
    pub url: String,
    requests: Requests,
}

impl Scripted {
    /// Answers with these in turn (status line and headers, body), then with empty successes.
    pub async fn start(answers: Vec<(&'static str, Vec<u8>)>) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Requests::default();
        let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
        let seen = requests.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answers.clone(), seen.clone()));
            }
        });
        Scripted { url, requests }
    }

    /// Heads and bodies of what came.
    pub fn requests(&self) -> Vec<(String, Vec<u8>)> {
        self.requests.lock().unwrap().clone()
    }
}

/// Heads in lower case, and bodies.
type Requests = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

type Answers = Arc<Mutex<VecDeque<(&'static str, Vec<u8>)>>>;

/// One request a connection; `None` when it breaks off.
async fn serve(mut stream: TcpStream, answers: Answers, seen: Requests) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    seen.lock().unwrap().push((head, body));
    let (head, body) = answers
        .lock()
        .unwrap()
        .pop_front()
        .unwrap_or(("200 OK\r\n", Vec::new()));
    let answer = format!(
        "HTTP/1.1 {head}Connection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await.ok()?;
    stream.write_all(&body).await.ok()
}
