//! A server that does what a real one does only at a bad moment: everything goes through to the
//! database, packet by packet, but for what a test wants to happen.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::lab::through;

/// What a client sends, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// An UPDATE is prepared.
    Update,
    /// A transaction is committed.
    Commit,
    /// Anything else.
    Other,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy)]
pub enum Fate {
    /// The server gets it.
    Pass,
    /// The client gets this error.
    Refuse(u16, &'static str),
    /// The server does it, and the client loses its connection.
    LoseAnswer,
}

pub struct Meddler {
    /// The server's address as a URL, but through here.
    pub url: String,
    connections: Arc<AtomicUsize>,
}

impl Meddler {
    /// `decide` gets the number of the connection, counted from 0, and the command.
    pub async fn new(decide: impl Fn(usize, Command) -> Fate + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let (url, server) = through(listener.local_addr().expect("address"));
        let meddler = Self {
            url,
            connections: Arc::default(),
        };
        let connections = meddler.connections.clone();
        let decide = Arc::new(decide);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = connections.fetch_add(1, Ordering::SeqCst);
                let server = TcpStream::connect(server.clone()).await;
                let server = server.expect("connect");
                let decide = decide.clone();
                tokio::spawn(async move {
                    // However it ends, both sides see it.
                    let _ = meddle(client, server, |command| decide(number, command)).await;
                });
            }
        });
        meddler
    }

    /// How many connections were made through here.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn meddle(
    mut client: TcpStream,
    mut server: TcpStream,
    decide: impl Fn(Command) -> Fate,
) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let mut answer = vec![0; 1 << 16];
    loop {
        tokio::select! {
            // Cancelled only by an answer, which comes between two commands.
            packet = packet(&mut from_client) => {
                let packet = packet?;
                match decide(command(&packet)) {
                    Fate::Pass => to_server.write_all(&packet).await?,
                    Fate::Refuse(number, text) => to_client.write_all(&refusal(number, text)).await?,
                    Fate::LoseAnswer => {
                        to_server.write_all(&packet).await?;
                        from_server.read_u8().await?;
                        return Ok(());
                    }
                }
            }
            read = from_server.read(&mut answer) => match read? {
                0 => return Ok(()),
                read => to_client.write_all(&answer[..read]).await?,
            }
        }
    }
}

/// A packet with its header: three bytes of length and a sequence number.
async fn packet(from: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut packet = vec![0; 4];
    from.read_exact(&mut packet).await?;
    let length = u32::from_le_bytes([packet[0], packet[1], packet[2], 0]) as usize;
    packet.resize(4 + length, 0);
    from.read_exact(&mut packet[4..]).await?;
    Ok(packet)
}

fn command(packet: &[u8]) -> Command {
    const QUERY: u8 = 0x03;
    const PREPARE: u8 = 0x16;
    match &packet[4..] {
        [PREPARE, sql @ ..] if sql.starts_with(b"UPDATE") => Command::Update,
        [QUERY, sql @ ..] if sql == b"COMMIT" => Command::Commit,
        _ => Command::Other,
    }
}

/// An error as the answer to a command.
fn refusal(number: u16, text: &str) -> Vec<u8> {
    let mut packet = vec![0, 0, 0, 1, 0xff];
    packet.extend(number.to_le_bytes());
    packet.extend(b"#HY000");
    packet.extend(text.as_bytes());
    packet[0] = u8::try_from(packet.len() - 4).expect("a short text");
    packet
}
