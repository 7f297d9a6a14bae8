//! Declarations, properties and bodies in lapin's terms.

use std::borrow::Cow;
use std::io;

use api_compat::messaging::compression::{self, inflate};
use api_compat::messaging::envelope::DecodeError;
use api_compat::messaging::queue::{Arguments, Declaration, Exchange, Queue, Value};
use lapin::message::Delivery;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, ExchangeKind};

/// Where to begin in a stream (a consumer's argument), and where in it a message was (a header).
pub const STREAM_OFFSET: &str = "x-stream-offset";

/// A name as AMQP has room for: 255 bytes.
///
/// # Errors
/// When it is longer; lapin's own conversion would panic.
pub fn short(name: &str) -> io::Result<ShortString> {
    ShortString::try_new(name).map_err(|_| {
        let beginning: String = name.chars().take(40).collect();
        let text = format!("a name of {} bytes is too long: {beginning}…", name.len());
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}

/// Arguments as a field table.
pub fn table(arguments: &Arguments) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        let value = match value {
            Value::Int(number) => AMQPValue::LongLongInt(*number),
            Value::Str(text) => AMQPValue::LongString(text.clone().into()),
            Value::Bool(truth) => AMQPValue::Boolean(*truth),
        };
        table.insert((*name).into(), value);
    }
    table
}

/// Declares an exchange.
pub async fn declare_exchange(channel: &Channel, exchange: &Exchange) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions {
        durable: exchange.durable,
        auto_delete: exchange.auto_delete,
        ..ExchangeDeclareOptions::default()
    };
    let kind = ExchangeKind::Custom(exchange.kind.as_str().to_owned());
    channel
        .exchange_declare(short(&exchange.name)?, kind, options, FieldTable::default())
        .await
}

/// Declares a queue.
pub async fn declare_queue(channel: &Channel, queue: &Queue) -> lapin::Result<()> {
    let options = QueueDeclareOptions {
        durable: queue.durable,
        auto_delete: queue.auto_delete,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(short(&queue.name)?, options, table(&queue.arguments))
        .await?;
    Ok(())
}

/// How many consume a queue, which must be there.
pub async fn consumers(channel: &Channel, queue: &str) -> lapin::Result<u32> {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel
        .queue_declare(short(queue)?, options, FieldTable::default())
        .await?;
    Ok(declared.consumer_count())
}

/// Binds a queue to its exchange, if it has one.
pub async fn bind(channel: &Channel, declaration: &Declaration) -> lapin::Result<()> {
    let Some(exchange) = &declaration.exchange else {
        return Ok(());
    };
    channel
        .queue_bind(
            short(&declaration.queue.name)?,
            short(&exchange.name)?,
            short(&declaration.routing_key)?,
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
}

/// A message's place in its stream; none if it was not in a stream.
pub fn stream_offset(properties: &BasicProperties) -> Option<i64> {
    match header(properties, STREAM_OFFSET)? {
        AMQPValue::LongLongInt(offset) => Some(*offset),
        _ => None,
    }
}

/// A message's body, decompressed where its sender has compressed it.
///
/// # Errors
/// [`DecodeError`] if it is too large or compressed in another way than its header says.
pub fn body(delivery: &Delivery) -> Result<Cow<'_, [u8]>, DecodeError> {
    let method = match header(&delivery.properties, compression::HEADER) {
        None | Some(AMQPValue::Void) => None,
        Some(AMQPValue::LongString(name)) => Some(String::from_utf8_lossy(name.as_bytes())),
        Some(_) => return Err(DecodeError::WrongType("the compression", "a text")),
    };
    inflate(&delivery.data, method.as_deref())
}

fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
    properties.headers().as_ref()?.inner().get(name)
}

/// The properties of every message that oslo.messaging sends.
pub fn properties() -> BasicProperties {
    BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_delivery_mode(2)
        .with_priority(0)
        .with_headers(FieldTable::default())
}
