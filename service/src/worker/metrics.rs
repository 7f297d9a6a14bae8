//! How far the worker's operations are, for Prometheus.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, serve};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::manager::{Data, Manager, Operation, Phase};

/// How often it is tried to listen: a worker that this one replaces may still do so.
const AGAIN: Duration = Duration::from_secs(5);

/// As Prometheus asks for it.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves `/metrics`, also while the worker stops.
pub async fn run(address: SocketAddr, manager: Arc<Manager>) {
    let mut registry = Registry::with_prefix("cinderblock");
    registry.register_collector(Box::new(Operations(manager)));
    let router = Router::new()
        .route("/metrics", get(metrics))
        .with_state(Arc::new(registry));
    let listener = listen(address).await;
    if let Err(error) = serve(listener, router).await {
        warn!(%error, "No metrics are served any more");
    }
}

async fn listen(address: SocketAddr) -> TcpListener {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                info!(%address, "Serving metrics");
                return listener;
            }
            Err(error) if !told => {
                warn!(%address, %error, "Cannot serve metrics; it is tried again");
                told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn metrics(State(registry): State<Arc<Registry>>) -> Response {
    let mut encoded = String::new();
    match text::encode(&mut encoded, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], encoded).into_response(),
        Err(fmt::Error) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// What the manager is at work on when somebody asks.
struct Operations(Arc<Manager>);

impl fmt::Debug for Operations {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Operations")
    }
}

impl Collector for Operations {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let operations = self.0.operations();
        encode_phases(&mut encoder, &operations)?;
        let (name, help) = ("operation_done", "Data that an operation has dealt with");
        encode_data(&mut encoder, &operations, name, help, |data| data.done)?;
        let (name, help) = ("operation_planned", "Data that it deals with, at most");
        encode_data(&mut encoder, &operations, name, help, |data| data.planned)
    }
}

fn encode_phases(encoder: &mut DescriptorEncoder, operations: &[Operation]) -> fmt::Result {
    let gauge = ConstGauge::new(0);
    let help = "Operations by what they are at";
    let mut family = encoder.encode_descriptor("operations", help, None, gauge.metric_type())?;
    for phase in Phase::ALL {
        let count = operations.iter().filter(|it| it.phase == phase).count();
        let labels = [("phase", phase.to_string())];
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// Of those only that move data: thousands may wait.
fn encode_data(
    encoder: &mut DescriptorEncoder,
    operations: &[Operation],
    name: &str,
    help: &str,
    of: impl Fn(&Data) -> u64,
) -> fmt::Result {
    let gauge = ConstGauge::new(0);
    let unit = Some(&Unit::Bytes);
    let mut family = encoder.encode_descriptor(name, help, unit, gauge.metric_type())?;
    for operation in operations {
        if let Some(data) = &operation.data {
            let labels = [
                ("backup", operation.backup.to_string()),
                ("operation", data.direction.to_string()),
            ];
            let bytes = i64::try_from(of(data)).unwrap_or(i64::MAX);
            ConstGauge::new(bytes).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}
