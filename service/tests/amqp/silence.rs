//! A broker that does not hear us any more.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::lab::Lab;

/// Class and method of what we send.
pub type Method = [u8; 4];

pub const QUEUE_DECLARE: Method = [0, 50, 0, 10];
pub const BASIC_ACK: Method = [0, 60, 0, 80];

/// Stands between us and the lab's broker. From the first connection's first `last` on nothing more
/// gets through to the broker; connections after it are left alone.
pub async fn falling_silent(lab: &Lab, last: Method) -> String {
    let broker = lab.transport_url().hosts[0].clone();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("it is bound").to_string();
    tokio::spawn(async move {
        let mut first = true;
        while let Ok((client, _)) = listener.accept().await {
            let connection = TcpStream::connect((broker.host.as_str(), broker.port)).await;
            let (mut ours, mut their_answers) = client.into_split();
            let (mut answers, mut theirs) = connection.expect("the broker is there").into_split();
            let silent = std::mem::take(&mut first);
            tokio::spawn(async move { tokio::io::copy(&mut answers, &mut their_answers).await });
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 << 10];
                let mut heard = true;
                while let Ok(length @ 1..) = ours.read(&mut buffer).await {
                    let bytes = &buffer[..length];
                    heard &= !(silent && bytes.windows(4).any(|window| window == last));
                    if heard && theirs.write_all(bytes).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}
