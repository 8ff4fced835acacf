//! A child process that does not outlive its parent.
//!
//! Every child is spawned by one thread that lives as long as this process does, because Linux can end a child along
//! with the *thread* that spawned it, and the threads of tests and of runtimes come and go.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, mpsc};
use std::thread;

/// Runs `binary`, which writes all that it prints to the end of `log`.
pub(super) fn spawn(binary: &Path, args: &[OsString], log: &Path) -> io::Result<Child> {
    let log = File::options().create(true).append(true).open(log)?;
    let mut command = command(binary);
    command.args(args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    spawn_for_life(command)
}

/// Kills and reaps. A paused process dies of it too.
pub(super) fn end(mut child: Child) -> io::Result<()> {
    child.kill()?;
    child.wait().map(drop)
}

/// A command that runs `binary` in an environment of its own, and ends with this process if the system can do that.
fn command(binary: &Path) -> Command {
    static SETPRIV: LazyLock<bool> = LazyLock::new(|| {
        let tried = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "sh", "-c", "true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        tried.is_ok_and(|status| status.success())
    });
    let mut command = if *SETPRIV {
        // The signal is asked for after the fork. The shell, which is replaced by etcd, looks whether we are still there.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "sh", "-c", r#"[ "$PPID" = "$0" ] && exec "$@""#]);
        command.arg(std::process::id().to_string()).arg(binary);
        // Not in our group, or a Ctrl-C at the terminal would reach etcd too, before we have released what we hold.
        command.process_group(0);
        command
    } else {
        Command::new(binary)
    };
    for (variable, _) in env::vars_os() {
        if variable.to_string_lossy().starts_with("ETCD_") {
            command.env_remove(variable);
        }
    }
    if cfg!(target_arch = "aarch64") {
        // Before 3.5 etcd does not run there unasked.
        command.env("ETCD_UNSUPPORTED_ARCH", "arm64");
    }
    command
}

/// Spawns from the thread that lives as long as this process.
fn spawn_for_life(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in inbox {
                reply.send(command.spawn()).expect("who asks for a child waits for it");
            }
        });
        orders
    });
    let (reply, child) = mpsc::channel();
    SPAWNER.send((command, reply)).expect("the thread ends with the process");
    child.recv().expect("the thread answers every order")
}
