//! A worker that runs against the lab's parts, each behind a door that a test may close.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{DRIVER, Folder};

/// The slowest line is that of a cluster that does not answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// A worker and its log.
pub struct Worker {
    child: RefCell<Child>,
    log: PathBuf,
    /// Where broker and database are reached.
    pub broker: Door,
    pub database: Door,
    folder: Folder,
    _parts: Parts,
}

/// Whoever stops one of the lab's parts has them all alone.
static PARTS: RwLock<()> = RwLock::new(());

/// Goes last, when the worker has ended.
enum Parts {
    Shared(#[expect(dead_code)] RwLockReadGuard<'static, ()>),
    Alone(#[expect(dead_code)] RwLockWriteGuard<'static, ()>),
}

impl Worker {
    /// Starts a worker with the lab's parts and these `[DEFAULT]` options; later ones win. It is
    /// not chosen for backups, should a cloud be there. A test has one worker at a time.
    pub fn start(options: &str) -> Self {
        // What a test that failed has stopped runs again.
        let parts = PARTS.read().unwrap_or_else(PoisonError::into_inner);
        Self::start_with(options, Parts::Shared(parts))
    }

    /// Starts one for a test that stops parts of the lab.
    pub fn start_alone() -> Self {
        let parts = PARTS.write().unwrap_or_else(PoisonError::into_inner);
        Self::start_with("", Parts::Alone(parts))
    }

    fn start_with(options: &str, parts: Parts) -> Self {
        let (broker, broker_url) = Door::before("LAB_AMQP_URL");
        let (database, database_url) = Door::before("LAB_DATABASE_URL");
        let folder = Folder::new();
        let log = folder.0.join("worker.log");
        let text = format!(
            "[DEFAULT]\n{DRIVER}\nhost = {}\nenable_new_services = false\n\
             transport_url = {broker_url}\nreport_interval = 1\n\
             backup_ceph_conf = {}\nbackup_ceph_user = admin\nbackup_ceph_pool = backups\n\
             backup_driver_init_check_interval = 5\nbackup_driver_stats_polling_interval = 10\n\
             {options}\n[database]\nconnection = {database_url}\n",
            folder.0.file_name().expect("a name").display(),
            variable("LAB_BACKUPS_CEPH_CONF"),
        );
        let conf = folder.file("cinder.conf", &text);
        let child = Command::new(env!("CARGO_BIN_EXE_cinder-backup"))
            .args([
                Path::new("--config-file"),
                &conf,
                "--log-file".as_ref(),
                &log,
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        Self {
            child: RefCell::new(child),
            log,
            broker,
            database,
            folder,
            _parts: parts,
        }
    }

    /// The folder of its configuration.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The lines of its log so far that hold all of these words.
    pub fn lines(&self, words: &[&str]) -> Vec<String> {
        // It is made by the worker, a moment after the start.
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines = log.lines().map(str::to_owned);
        lines
            .filter(|line| words.iter().all(|word| line.contains(word)))
            .collect()
    }

    /// Waits for a line of its log that holds all of these words.
    pub fn wait_for(&self, words: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.lines(words).pop() {
                return line;
            }
            let ended = self.child.borrow_mut().try_wait();
            let runs = ended.expect("it can be waited for").is_none();
            let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
            let goes_on = runs && Instant::now() < deadline;
            assert!(goes_on, "{words:?} is not in:\n{}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        let id = i32::try_from(child.id()).expect("an id");
        // What has ended already needs no signal.
        let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        for _ in 0..300 {
            if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        // A test that fails shall not leave it behind.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A variable that the lab sets.
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `make test`"))
}

/// A way to one of the lab's servers that can be closed: then connections end and new ones are
/// refused.
pub struct Door {
    address: SocketAddr,
    server: String,
    open: Mutex<Option<Open>>,
}

struct Open {
    listener: TcpListener,
    accepting: JoinHandle<()>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Door {
    /// A door before the server in this URL, and the URL with the door in its place.
    fn before(name: &str) -> (Self, String) {
        let url = variable(name);
        let start = url.find('@').expect("the URL has a user") + 1;
        let length = url[start..].find('/').expect("the URL has a path");
        let server = url[start..start + length].to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let door = Self {
            address,
            server: server.clone(),
            open: Mutex::new(None),
        };
        door.serve(listener);
        (door, url.replacen(&server, &address.to_string(), 1))
    }

    /// The address that the worker uses.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn close(&self) {
        let Some(open) = self.open.lock().expect("unhurt").take() else {
            return;
        };
        open.listener.set_nonblocking(true).expect("a listener");
        // Wakes the thread that accepts, which ends then; until it has, it may let somebody in.
        let _ = TcpStream::connect(self.address);
        open.accepting.join().expect("no panic");
        drop(open.listener);
        for stream in open.streams.lock().expect("unhurt").drain(..) {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn open(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match TcpListener::bind(self.address) {
                Ok(listener) => return self.serve(listener),
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn serve(&self, listener: TcpListener) {
        let streams = Arc::new(Mutex::new(Vec::new()));
        let door = listener.try_clone().expect("a listener");
        let (kept, server) = (streams.clone(), self.server.clone());
        let accepting = std::thread::spawn(move || {
            while let Ok((client, _)) = door.accept() {
                let _ = join(client, &server, &kept);
            }
        });
        *self.open.lock().expect("unhurt") = Some(Open {
            listener,
            accepting,
            streams,
        });
    }
}

/// Hands on what comes, in both directions.
fn join(client: TcpStream, server: &str, kept: &Mutex<Vec<TcpStream>>) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    for (mut from, mut to) in [
        (client.try_clone()?, server.try_clone()?),
        (server.try_clone()?, client.try_clone()?),
    ] {
        std::thread::spawn(move || {
            let mut buffer = [0; 16384];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                if to.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    kept.lock().expect("unhurt").extend([client, server]);
    Ok(())
}
