//! MySQL's protocol, as far as a meddler has to know it.

use std::io::Result;

use tokio::io::AsyncReadExt;

use super::Command;

/// A packet with its header: three bytes of length and a sequence number.
pub async fn packet(from: &mut (impl AsyncReadExt + Unpin)) -> Result<Vec<u8>> {
    let mut packet = vec![0; 4];
    from.read_exact(&mut packet).await?;
    let length = u32::from_le_bytes([packet[0], packet[1], packet[2], 0]) as usize;
    packet.resize(4 + length, 0);
    from.read_exact(&mut packet[4..]).await?;
    Ok(packet)
}

pub fn command(packet: &[u8]) -> Command {
    const QUERY: u8 = 0x03;
    const PREPARE: u8 = 0x16;
    const EXECUTE: u8 = 0x17;
    match &packet[4..] {
        [PREPARE, sql @ ..] if sql.starts_with(b"UPDATE") => Command::Update,
        [PREPARE, sql @ ..] if sql.starts_with(b"INSERT") => Command::Insert,
        [EXECUTE, ..] => Command::Execute,
        [QUERY, sql @ ..] if sql == b"COMMIT" => Command::Commit,
        _ => Command::Other,
    }
}

/// An error as the answer to a command.
pub fn refusal((number, text): (u16, &str)) -> Vec<u8> {
    let mut packet = vec![0, 0, 0, 1, 0xff];
    packet.extend(number.to_le_bytes());
    packet.extend(b"#HY000");
    packet.extend(text.as_bytes());
    packet[0] = u8::try_from(packet.len() - 4).expect("a short text");
    packet
}
