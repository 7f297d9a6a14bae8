//! Declaring what may be there already, and a little different.

use api_compat::messaging::queue::{Declaration, Exchange, Queue};
use lapin::{Connection, ErrorKind};
use tracing::warn;

use super::wire;

/// AMQP's reply code for a declaration that does not fit what is there.
const PRECONDITION_FAILED: u16 = 406;

enum Part<'a> {
    Exchange(&'a Exchange),
    Queue(&'a Queue),
}

/// Declares an exchange. One that exists with another durability, because a service with other
/// options was there first, is used as it is (oslo.messaging does so in one of the two cases).
///
/// # Errors
/// The broker's reason.
pub async fn exchange(connection: &Connection, exchange: &Exchange) -> Result<(), String> {
    let name = &exchange.name;
    let Some(refused) = attempt(connection, Part::Exchange(exchange)).await? else {
        return Ok(());
    };
    let other = Exchange {
        durable: !exchange.durable,
        ..exchange.clone()
    };
    if !matches!(attempt(connection, Part::Exchange(&other)).await, Ok(None)) {
        return Err(format!(
            "exchange {name} exists with other properties than [oslo_messaging_rabbit] asks for: \
             {refused}"
        ));
    }
    warn!(
        exchange = name,
        reason = refused,
        "The exchange exists with another durability and is used as it is"
    );
    Ok(())
}

/// Declares a queue with its exchange and binding. A queue that exists with another durability is
/// used as it is, like an exchange.
///
/// # Errors
/// The broker's reason.
pub async fn queue(connection: &Connection, declaration: &Declaration) -> Result<(), String> {
    if let Some(needed) = &declaration.exchange {
        exchange(connection, needed).await?;
    }
    let queue = &declaration.queue;
    let name = &queue.name;
    if let Some(refused) = attempt(connection, Part::Queue(queue)).await? {
        let other = Queue {
            durable: !queue.durable,
            ..queue.clone()
        };
        if !matches!(attempt(connection, Part::Queue(&other)).await, Ok(None)) {
            return Err(format!(
                "queue {name} exists with other arguments than [oslo_messaging_rabbit] asks for; \
                 delete it, or change the options: {refused}"
            ));
        }
        warn!(
            queue = name,
            reason = refused,
            "The queue exists with another durability and is used as it is"
        );
    }
    let channel = connection.create_channel().await.map_err(text)?;
    wire::bind(&channel, declaration).await.map_err(text)?;
    channel.close(200, "OK".into()).await.map_err(text)
}

/// Declares on a channel of its own, since a refusal closes the channel. Gives the broker's words
/// if what exists does not fit.
async fn attempt(connection: &Connection, part: Part<'_>) -> Result<Option<String>, String> {
    let channel = connection.create_channel().await.map_err(text)?;
    let declared = match part {
        Part::Exchange(exchange) => wire::declare_exchange(&channel, exchange).await,
        Part::Queue(queue) => wire::declare_queue(&channel, queue).await,
    };
    match declared {
        Ok(()) => {
            channel.close(200, "OK".into()).await.map_err(text)?;
            Ok(None)
        }
        Err(error) if is_precondition(&error) => Ok(Some(text(error))),
        Err(error) => Err(text(error)),
    }
}

fn is_precondition(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(error) if error.get_id() == PRECONDITION_FAILED)
}

fn text(error: lapin::Error) -> String {
    error.to_string()
}
