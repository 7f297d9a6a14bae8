//! The process: reads the configuration, wires the rooms together, says that it is there, serves
//! requests, and ends in order.

mod capabilities;
pub mod command_line;
mod heartbeat;
mod logging;
mod metrics;
mod reload;
mod signals;
mod vault_watch;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use api_compat::config::{Config, seconds};
use api_compat::log_line;
use api_compat::messaging::Failure;
use api_compat::objects::{self, LogLevel, LogLevelList, ObjectHistory};
use api_compat::rpc::BackupMethod;
use api_compat::rpc::backup::TOPIC;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, warn};

use crate::amqp::{Amqp, Incoming};
use crate::attach::Attacher;
use crate::core_dumps;
use crate::db::Database;
use crate::keys::KeyManager;
use crate::manager::Manager;
use crate::settings;

use capabilities::Capabilities;
use command_line::CommandLine;
use heartbeat::Heartbeat;
use logging::{Levels, Log};
use reload::Reload;
use signals::{Signal, Signals};

/// The name of the binary, of its service row and of its topic.
pub const BINARY: &str = TOPIC;

/// How long the first look at the vault is waited for before the worker says that it cannot work.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// How long telling the scheduler of a stop may hold it up. With all else it is less than the ten seconds
/// after which a container is killed.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long telling others of its host that this worker has ended may take; they see it themselves later.
const END_OF_LIFE: Duration = Duration::from_secs(2);

/// Runs the worker until it is told to stop.
///
/// # Errors
/// What keeps it from starting: a configuration that cannot be used, a log file that cannot be
/// written, a database that does not answer for as long as the configuration says.
pub fn run(command_line: &CommandLine) -> anyhow::Result<()> {
    core_dumps::disable();
    let config = settings::load(&command_line.paths, command_line.overrides())?;
    let log = logging::start(&config.logging, BINARY)?;
    for warning in config.warnings() {
        match warning.is_harmless() {
            true => info!("{warning}"),
            false => warn!("{warning}"),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let in_file = log.is_file();
    let served = runtime.block_on(async {
        // First, so that a signal during the start ends it in order.
        let mut signals = Signals::new()?;
        let worker = tokio::select! {
            worker = start(config, log, command_line) => worker?,
            () = signals.terminated() => return Ok(()),
        };
        worker.serve(signals).await
    });
    if let Err(error) = &served
        && in_file
    {
        error!("{error:#}");
    }
    // A thread that is blocked on a cluster that does not answer is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

/// What the parts of a running worker share.
struct Worker {
    config: Config,
    manager: Arc<Manager>,
    amqp: Amqp,
    ready: watch::Receiver<bool>,
    publish: Arc<Notify>,
    stop: CancellationToken,
    /// What shows others that this process lives.
    living: AbortHandle,
    levels: Levels,
    reload: Reload,
}

/// Everything up to the first request.
async fn start(config: Config, log: Log, command_line: &CommandLine) -> anyhow::Result<Worker> {
    let host = config.service.host.clone();
    info!(
        version = env!("CARGO_PKG_VERSION"),
        host,
        configuration = joined(config.files().iter().map(|path| path.display())),
        "Starting cinder-backup"
    );
    // First, since nothing that could be away is needed to refuse certificates.
    let amqp = Amqp::new(crate::amqp::Options::from_config(&config)?)?;
    let database = Database::connect(&settings::database(&config)).await?;
    info!(
        database = config.database_url.location(),
        "Reached the database"
    );
    let heartbeat = Heartbeat::register(&config, database.clone()).await?;
    let history = settings::history(&database.versions().await?)?;

    let (readiness, ready) = watch::channel(false);
    let manager = Arc::new(Manager::new(
        settings::manager(&config),
        database.clone(),
        amqp.clone(),
        settings::vault(&config)?,
        Attacher::new(amqp.clone(), settings::os_brick(&config)),
        KeyManager::from_config(&config),
        ready.clone(),
    ));
    manager.speak(history);
    let living = tokio::spawn({
        let manager = manager.clone();
        async move { manager.live().await }
    });
    tokio::spawn({
        let manager = manager.clone();
        async move { manager.look_around().await }
    });
    tokio::spawn({
        let manager = manager.clone();
        async move { manager.tell().await }
    });
    if let Err(error) = manager.clean_up().await {
        error!(%error, "Cannot clean up what an earlier process left unfinished");
    }
    tokio::spawn(manager.clone().watch_over_others());
    manager.replace_fixed_key();

    let levels = log.levels().clone();
    let reload = Reload::new(command_line.clone(), log, database, manager.clone());
    let worker = Worker {
        manager,
        amqp,
        ready,
        publish: Arc::new(Notify::new()),
        stop: CancellationToken::new(),
        living: living.abort_handle(),
        config,
        levels,
        reload,
    };
    let interval = seconds(worker.config.backup.backup_driver_init_check_interval);
    tokio::spawn(vault_watch::run(
        worker.manager.clone(),
        worker.config.ceph.clone(),
        readiness,
        interval,
        worker.stop.clone(),
    ));
    tokio::spawn(heartbeat.run(worker.ready.clone(), worker.stop.clone()));
    if let Some(address) = worker.config.cinderblock.metrics_listen {
        tokio::spawn(metrics::run(address, worker.manager.clone()));
    }
    Ok(worker)
}

impl Worker {
    /// Takes requests until a signal ends it.
    ///
    /// # Errors
    /// When the consumer of requests ends by itself: whoever watches the process shall start another.
    async fn serve(&self, mut signals: Signals) -> anyhow::Result<()> {
        let capabilities = Capabilities::new(&self.config, self.amqp.clone());
        let publishing = tokio::spawn(capabilities.clone().run(
            self.ready.clone(),
            self.publish.clone(),
            self.stop.clone(),
        ));
        // Requests that waited for this start shall not be refused because it has just begun.
        let mut ready = self.ready.clone();
        tokio::select! {
            _ = tokio::time::timeout(FIRST_LOOK, ready.wait_for(|ready| *ready)) => {}
            () = signals.terminated() => self.stop.cancel(),
        }
        info!(
            brokers = brokers(&self.config),
            "Connecting to the message broker"
        );
        let mut server = self.amqp.serve(TOPIC, &self.config.service.host);
        tokio::spawn(tell_when_listening(self.config.clone(), server.ready()));
        let mut outcome = Ok(());
        while !self.stop.is_cancelled() {
            tokio::select! {
                incoming = server.next() => match incoming {
                    Some(incoming) => self.take(incoming).await,
                    None => {
                        outcome = Err(anyhow::anyhow!("the consumer of requests has ended"));
                        break;
                    }
                },
                signal = signals.next() => match signal {
                    Signal::Terminate => break,
                    other => self.heed(other),
                },
            }
        }
        info!("Stopping: no new requests are taken");
        // What rests would never end.
        self.heed(Signal::Resume);
        self.stop.cancel();
        if let Err(error) = publishing.await {
            error!(%error, "Publishing the capabilities ended badly");
        }
        // Before the queue is left, so that nothing is sent there that nobody takes.
        let hurried = tokio::select! {
            () = self.withdraw(&capabilities) => false,
            () = signals.terminated() => true,
        };
        server.stop().await;
        if hurried || !self.drain(signals).await {
            self.tell_what_is_left();
        }
        self.living.abort();
        let _ = tokio::join!(
            tokio::time::timeout(END_OF_LIFE, self.manager.end_life()),
            self.amqp.close(),
        );
        info!("Stopped");
        outcome
    }

    /// Does what a signal asks for that does not end the worker.
    fn heed(&self, signal: Signal) {
        match signal {
            Signal::Terminate => {}
            Signal::Reload => self.reload.take_up(),
            Signal::Pause if self.manager.pause(true) => {
                info!("Transfers rest until the signal CONT arrives");
            }
            Signal::Resume if self.manager.pause(false) => info!("Transfers go on"),
            Signal::Pause | Signal::Resume => {}
            Signal::Report => self.manager.report(),
        }
    }

    /// Tells the scheduler that no backups are made here any more, unless another worker makes them: it
    /// knows hosts, not processes.
    async fn withdraw(&self, capabilities: &Capabilities) {
        if !self.manager.has_company().await {
            let _ = tokio::time::timeout(FAREWELL, capabilities.say_farewell()).await;
        }
    }

    /// Takes a request on and starts what it asks for. What cannot be understood is answered, if
    /// somebody waits, and logged.
    async fn take(&self, incoming: Incoming) {
        let span = logging::request_span(&incoming.request().context);
        let ping = self.config.messaging.rpc_ping_enabled;
        let method = BackupMethod::parse(incoming.request(), ping);
        let accepted = incoming.accept().instrument(span.clone()).await;
        let Some((request, reply)) = accepted else {
            return;
        };
        let (manager, publish) = (self.manager.clone(), self.publish.clone());
        let levels = self.levels.clone();
        let operation = async move {
            let outcome = match method {
                Ok(BackupMethod::PublishServiceCapabilities) => {
                    publish.notify_one();
                    Ok(Value::Null)
                }
                Ok(BackupMethod::SetLogLevels { log_request }) => set_levels(&levels, &log_request),
                Ok(BackupMethod::GetLogLevels { log_request }) => {
                    let prefix = log_request.prefix.unwrap_or_default();
                    let objects = levels.get(&prefix);
                    Ok(objects::encode(
                        &LogLevelList { objects },
                        ObjectHistory::default(),
                    ))
                }
                Ok(method) => manager.serve(method, request.context).await,
                Err(refusal) => {
                    warn!(method = request.method, %refusal, "Refused a request");
                    Err(refusal.failure())
                }
            };
            if let Some(reply) = reply {
                reply.send(outcome).await;
            }
        };
        self.manager.spawn(operation.instrument(span));
    }

    /// Lets running operations end, for as long as `graceful_shutdown_timeout` says or until a second
    /// signal asks for an end at once. Whether all have ended.
    async fn drain(&self, mut signals: Signals) -> bool {
        let patience = match self.config.service.graceful_shutdown_timeout {
            0 => Duration::MAX,
            patience => seconds(patience),
        };
        let running = self.running();
        if !running.is_empty() {
            let most = match self.config.service.graceful_shutdown_timeout {
                0 => "for as long as it takes".to_owned(),
                seconds => format!("for {seconds} s at most"),
            };
            info!(backups = running, "Waiting for what runs, {most}");
        }
        let mut drained = pin!(tokio::time::timeout(patience, self.manager.drained()));
        loop {
            tokio::select! {
                ended = &mut drained => return ended.is_ok(),
                signal = signals.next() => match signal {
                    Signal::Terminate => return false,
                    Signal::Pause => info!("Transfers do not rest while the worker stops"),
                    other => self.heed(other),
                },
            }
        }
    }

    fn tell_what_is_left(&self) {
        let backups = self.running();
        if !backups.is_empty() {
            warn!(
                backups,
                "Operations still run; the next start goes on with them"
            );
        }
    }

    /// The backups on which operations run, with commas between.
    fn running(&self) -> String {
        let busy = self.manager.busy();
        let backups: Vec<String> = busy.iter().map(ToString::to_string).collect();
        backups.join(",")
    }
}

/// Tells once that requests are being consumed; what becomes of the connection later is told where
/// it is made.
async fn tell_when_listening(config: Config, mut ready: watch::Receiver<bool>) {
    let host = &config.service.host;
    if ready.wait_for(|ready| *ready).await.is_ok() {
        info!(
            brokers = brokers(&config),
            queues = joined([TOPIC.to_owned(), format!("{TOPIC}.{host}")]),
            "Taking requests from the message broker"
        );
    }
}

fn brokers(config: &Config) -> String {
    let hosts = config.messaging.transport_url.hosts.iter();
    joined(hosts.map(|at| format!("{}:{}", at.host, at.port)))
}

/// A list as one word of a log line.
fn joined(items: impl IntoIterator<Item = impl ToString>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(",")
}

fn set_levels(levels: &Levels, wanted: &LogLevel) -> Result<Value, Failure> {
    let prefix = wanted.prefix.as_deref().unwrap_or_default();
    let level = wanted.level.as_deref().unwrap_or_default().parse();
    let level: log_line::Level = level.map_err(|error: log_line::NotALevel| {
        warn!(%error, "The log levels stay as they are");
        Failure::invalid_input(&error.to_string())
    })?;
    let loggers = levels.set(prefix, level);
    info!(
        prefix,
        level = level.as_str(),
        loggers,
        "Changed the log levels"
    );
    Ok(Value::Null)
}
