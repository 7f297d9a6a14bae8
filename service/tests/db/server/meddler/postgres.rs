//! PostgreSQL's protocol, as far as a meddler has to know it.

use std::io::Result;

use tokio::io::AsyncReadExt;

use super::Command;

const PARSE: u8 = b'P';
const EXECUTE: u8 = b'E';
const QUERY: u8 = b'Q';
const SYNC: u8 = b'S';

/// A message: its type, which the first one of a connection has not, its length with that of the length
/// itself, and what it holds.
pub async fn message(from: &mut (impl AsyncReadExt + Unpin), typed: bool) -> Result<Vec<u8>> {
    let head = if typed { 5 } else { 4 };
    let mut message = vec![0; head];
    from.read_exact(&mut message).await?;
    let length: [u8; 4] = message[head - 4..].try_into().expect("four bytes");
    message.resize(head - 4 + u32::from_be_bytes(length) as usize, 0);
    from.read_exact(&mut message[head..]).await?;
    Ok(message)
}

pub fn command(message: &[u8]) -> Command {
    match message {
        // The name of the statement, and the statement, each ended by a zero.
        [PARSE, _, _, _, _, rest @ ..] => {
            let sql = rest.split(|byte| *byte == 0).nth(1).unwrap_or_default();
            match sql {
                [b'U', b'P', ..] => Command::Update,
                [b'I', b'N', ..] => Command::Insert,
                _ => Command::Other,
            }
        }
        [EXECUTE, ..] => Command::Execute,
        [QUERY, _, _, _, _, sql @ ..] if sql == b"COMMIT\0" => Command::Commit,
        _ => Command::Other,
    }
}

/// What follows up to the message after which a client waits for an answer.
pub async fn rest(from: &mut (impl AsyncReadExt + Unpin)) -> Result<Vec<u8>> {
    let mut rest = Vec::new();
    loop {
        let message = message(from, true).await?;
        rest.extend(&message);
        if message[0] == SYNC {
            return Ok(rest);
        }
    }
}

/// An error as the answer to a command within a transaction, which has failed by it.
pub fn refusal((code, text): (&str, &str)) -> Vec<u8> {
    let mut fields = Vec::new();
    for (field, value) in [(b'S', "ERROR"), (b'V', "ERROR"), (b'C', code), (b'M', text)] {
        fields.push(field);
        fields.extend(value.as_bytes());
        fields.push(0);
    }
    fields.push(0);
    let mut answer = framed(b'E', &fields);
    answer.extend(framed(b'Z', b"E"));
    answer
}

fn framed(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len() + 4).expect("a short text");
    let mut message = vec![kind];
    message.extend(length.to_be_bytes());
    message.extend(content);
    message
}
