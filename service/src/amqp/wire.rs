//! Declarations and properties in lapin's terms.

use api_compat::messaging::queue::{Arguments, Declaration, Exchange, Queue, Value};
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, ExchangeKind};

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
        .exchange_declare(
            exchange.name.as_str().into(),
            kind,
            options,
            FieldTable::default(),
        )
        .await
}

async fn declare_queue(channel: &Channel, queue: &Queue) -> lapin::Result<()> {
    let options = QueueDeclareOptions {
        durable: queue.durable,
        auto_delete: queue.auto_delete,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(queue.name.as_str().into(), options, table(&queue.arguments))
        .await?;
    Ok(())
}

/// Declares a queue with its exchange and binding.
pub async fn declare(channel: &Channel, declaration: &Declaration) -> lapin::Result<()> {
    if let Some(exchange) = &declaration.exchange {
        declare_exchange(channel, exchange).await?;
    }
    declare_queue(channel, &declaration.queue).await?;
    if let Some(exchange) = &declaration.exchange {
        channel
            .queue_bind(
                declaration.queue.name.as_str().into(),
                exchange.name.as_str().into(),
                declaration.routing_key.as_str().into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await?;
    }
    Ok(())
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
