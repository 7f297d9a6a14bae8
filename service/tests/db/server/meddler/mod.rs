//! A server that does what a real one does only at a bad moment: everything goes through to the
//! database, message by message, but for what a test wants to happen.

mod mysql;
mod postgres;

use std::io::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api_compat::config::database_url::Backend;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::lab::{backend, through};

/// What a client sends, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// A connection begins.
    Begin,
    /// An UPDATE is prepared.
    Update,
    /// An INSERT is prepared.
    Insert,
    /// A statement that was prepared is carried out.
    Execute,
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
    Refuse(Refusal),
    /// The server does not get it, and both lose the connection.
    HangUp,
    /// The server does it, and the client loses its connection.
    LoseAnswer,
    /// The host of the server dies: what was connected until now never gets an answer, nor an end.
    Die,
    /// The same, after the server did it.
    DieAfter,
}

/// An error as each of the servers says it: its code and text.
#[derive(Debug, Clone, Copy)]
pub struct Refusal {
    pub mysql: (u16, &'static str),
    pub postgres: (&'static str, &'static str),
}

pub struct Meddler {
    /// The server's address as a URL, but through here.
    pub url: String,
    connections: Arc<AtomicUsize>,
    /// How many of them, counted from the first, lead to a host that died.
    dead: Arc<AtomicUsize>,
}

impl Meddler {
    /// `decide` gets the number of the connection, counted from 0, and the command.
    pub async fn new(decide: impl Fn(usize, Command) -> Fate + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let (url, server) = through(listener.local_addr().expect("address"));
        let meddler = Self {
            url,
            connections: Arc::default(),
            dead: Arc::default(),
        };
        let connections = meddler.connections.clone();
        let decide = Arc::new(decide);
        let dead = meddler.dead.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = connections.fetch_add(1, Ordering::SeqCst);
                let server = TcpStream::connect(server.clone()).await;
                let server = server.expect("connect");
                let (decide, dead, connections) =
                    (decide.clone(), dead.clone(), connections.clone());
                tokio::spawn(async move {
                    let decide = |command| {
                        if number < dead.load(Ordering::SeqCst) {
                            return Fate::Die;
                        }
                        let fate = decide(number, command);
                        if matches!(fate, Fate::Die | Fate::DieAfter) {
                            dead.store(connections.load(Ordering::SeqCst), Ordering::SeqCst);
                        }
                        fate
                    };
                    // However it ends, both sides see it.
                    let _ = meddle(client, server, decide).await;
                });
            }
        });
        meddler
    }

    /// The host of the server dies, as with [`Fate::Die`].
    pub fn die(&self) {
        self.dead.store(self.connections(), Ordering::SeqCst);
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
) -> Result<()> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let mut wire = Wire::new();
    let mut answer = vec![0; 1 << 16];
    loop {
        tokio::select! {
            // Cancelled only by an answer, which comes between two commands.
            message = wire.message(&mut from_client) => {
                let (command, message) = message?;
                match decide(command) {
                    Fate::Pass => to_server.write_all(&message).await?,
                    Fate::Refuse(refusal) => {
                        if command != Command::Begin {
                            wire.rest(&mut from_client).await?;
                        }
                        to_client.write_all(&wire.refusal(refusal)).await?;
                        if command == Command::Begin {
                            return Ok(());
                        }
                    }
                    Fate::HangUp => return Ok(()),
                    Fate::LoseAnswer => {
                        to_server.write_all(&message).await?;
                        if command == Command::Execute {
                            to_server.write_all(&wire.rest(&mut from_client).await?).await?;
                        }
                        from_server.read_u8().await?;
                        return Ok(());
                    }
                    Fate::Die => return swallow(&mut from_client).await,
                    Fate::DieAfter => {
                        to_server.write_all(&message).await?;
                        from_server.read_u8().await?;
                        return swallow(&mut from_client).await;
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

/// Takes what a client sends, until it gives up.
async fn swallow(from: &mut (impl AsyncRead + Unpin)) -> Result<()> {
    tokio::io::copy(from, &mut tokio::io::sink()).await?;
    Ok(())
}

/// What a client of the server under test says, and what it understands.
struct Wire {
    backend: Backend,
    /// Whether the first message is through.
    begun: bool,
}

impl Wire {
    fn new() -> Self {
        Self {
            backend: backend(),
            begun: false,
        }
    }

    async fn message(
        &mut self,
        from: &mut (impl AsyncReadExt + Unpin),
    ) -> Result<(Command, Vec<u8>)> {
        let message = match self.backend {
            Backend::Postgres => postgres::message(from, self.begun).await?,
            _ => mysql::packet(from).await?,
        };
        let command = match (self.begun, self.backend) {
            (false, _) => Command::Begin,
            (true, Backend::Postgres) => postgres::command(&message),
            (true, _) => mysql::command(&message),
        };
        self.begun = true;
        Ok((command, message))
    }

    /// What a client sends after a statement without waiting for the answer that it will get.
    async fn rest(&self, from: &mut (impl AsyncReadExt + Unpin)) -> Result<Vec<u8>> {
        match self.backend {
            Backend::Postgres => postgres::rest(from).await,
            _ => Ok(Vec::new()),
        }
    }

    fn refusal(&self, refusal: Refusal) -> Vec<u8> {
        match self.backend {
            Backend::Postgres => postgres::refusal(refusal.postgres),
            _ => mysql::refusal(refusal.mysql),
        }
    }
}
