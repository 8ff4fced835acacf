//! What can be asked for on the command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use tenure::FencingToken;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The time between SIGTERM, at a quarter of the TTL, and SIGKILL, half a second before the deadline, shrinks to
/// nothing at 2 s.
pub(crate) const MIN_TTL_OF_COMMAND: Duration = Duration::from_secs(3);

#[derive(Debug, Parser)]
#[command(
    name = "tenure",
    version,
    about = "Locks and leadership on etcd, for scripts",
    after_help = "`tenure --help` explains exit codes and the environment, `tenure COMMAND --help` has examples.",
    after_long_help = REFERENCE,
    max_term_width = 100
)]
pub(crate) struct Arguments {
    /// Say everything in JSON, one object a line; beside a command on standard error.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) request: Request,
}

const REFERENCE: &str = "\
Exit codes:
  of CMD  its own; 128 + N if signal N ended it, as shells say it
  0       done
  1       any other failure, such as a missing permission or another kind of lock on the name
  2       wrong usage
  69      etcd cannot be reached
  124     not free within --timeout, or not free with --try
  125     the hold was lost; or CMD failed after it was told that the hold was about to be
  126     CMD cannot be executed
  127     CMD was not found
  130     interrupted while waiting (128 + the signal)

Environment:
  ETCDCTL_ENDPOINTS, ETCDCTL_USER, ETCDCTL_PASSWORD, ETCDCTL_CACERT, ETCDCTL_CERT, ETCDCTL_KEY,
  ETCDCTL_DIAL_TIMEOUT and ETCDCTL_COMMAND_TIMEOUT stand in for the flags of the same names, as
  with etcdctl; TENURE_NAMESPACE for --namespace. A flag wins over a variable.

  CMD finds TENURE_NAME, TENURE_KEY, TENURE_TOKEN (a number that is larger for every later
  holder: fence your writes with it) and TENURE_LEASE (in hex), and, as with `etcdctl lock`,
  ETCD_LOCK_KEY and ETCD_LOCK_REV.";

#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Common {
    /// Members of the cluster: HOST:PORT, http://HOST:PORT or https://HOST:PORT, separated by commas.
    #[arg(long, env = "ETCDCTL_ENDPOINTS", value_delimiter = ',', default_value = "127.0.0.1:2379", global = true)]
    pub(crate) endpoints: Vec<String>,
    /// Whom to log in as: NAME or NAME:PASSWORD.
    #[arg(long, env = "ETCDCTL_USER", value_name = "NAME[:PASSWORD]", hide_env_values = true, global = true)]
    pub(crate) user: Option<String>,
    /// The user's password. Others on the machine can read a flag: prefer the variable.
    #[arg(long, env = "ETCDCTL_PASSWORD", hide_env_values = true, global = true)]
    pub(crate) password: Option<String>,
    /// Trust servers with certificates of this authority (PEM); else, with https, those that the system trusts.
    #[arg(long, env = "ETCDCTL_CACERT", value_name = "FILE", global = true)]
    pub(crate) cacert: Option<PathBuf>,
    /// Identify with this certificate (PEM).
    #[arg(long, env = "ETCDCTL_CERT", value_name = "FILE", global = true)]
    pub(crate) cert: Option<PathBuf>,
    /// The key of the certificate (PEM).
    #[arg(long, env = "ETCDCTL_KEY", value_name = "FILE", global = true)]
    pub(crate) key: Option<PathBuf>,
    /// How long a connection may take.
    #[arg(long, env = "ETCDCTL_DIAL_TIMEOUT", value_name = "DURATION", default_value = "2s", value_parser = duration, global = true)]
    pub(crate) dial_timeout: Duration,
    /// How long a request may take; waiting for one's turn is not one.
    #[arg(long, env = "ETCDCTL_COMMAND_TIMEOUT", value_name = "DURATION", default_value = "5s", value_parser = duration, global = true)]
    pub(crate) command_timeout: Duration,
    /// A prefix of all names, such as `prod/`.
    #[arg(
        long,
        env = "TENURE_NAMESPACE",
        default_value = "",
        hide_default_value = true,
        value_name = "PREFIX/",
        global = true
    )]
    pub(crate) namespace: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Request {
    /// Hold a lock, while a command runs or until Ctrl-C
    ///
    /// Waits in the queue of NAME, in the order of arrival over all processes, whether they use this command, the crate
    /// `tenure`, Go's `concurrency` or `etcdctl lock`. Then runs CMD, or, without one, holds until Ctrl-C.
    ///
    /// CMD has the terminal and a process group of its own; signals are forwarded to that group. The lock is given back
    /// when CMD ends: what it leaves in the background is not waited for.
    ///
    /// If the lock cannot be kept, SIGTERM goes to the group a quarter of the TTL before the hold's deadline, and SIGKILL
    /// half a second before it, so that the group has ended when the next one begins. So it has if `tenure` itself is killed
    /// or stopped: a second process guards the group, and on Linux CMD has a parent-death signal besides. Out of reach
    /// are those who leave the group or change their user, and a machine that stands still: for that there is TENURE_TOKEN.
    #[command(after_help = LOCK_EXAMPLES, after_long_help = LOCK_EXAMPLES)]
    Lock(Lock),
    /// Hold an office, while a command runs or until Ctrl-C
    ///
    /// Stands for the office NAME with VALUE as proposal, which everyone can observe. Everything else is as with `lock`.
    #[command(after_help = ELECT_EXAMPLES, after_long_help = ELECT_EXAMPLES)]
    Elect(Elect),
    /// Follow who leads
    ///
    /// Prints the present leader, then every change, vacancies included, until Ctrl-C.
    Observe {
        /// The office.
        name: String,
    },
    /// List the names that are held or waited for
    Ls {
        /// Only names that begin with this.
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
    },
    /// Show who holds a name, and who waits for it, in order
    ///
    /// Of each: who it is, its fencing token, since when it asks (by its own clock; elections and other clients do not
    /// say), its lease and what remains of it, and what it asks for. Those who hold are marked with a star.
    Show {
        /// The lock or the office.
        name: String,
    },
    /// Watch names, holders and waiters as they change
    ///
    /// Reads what there is and watches it from then on; where etcd is away it says so, and goes on when it is back. It
    /// writes nothing: a role that may read the prefix suffices. Who candidates are it knows from the sessions' own keys,
    /// `~session/`; whoever may not read those sees the last part of a candidate's key. All that is written below the
    /// prefix comes over the wire: give one, where other data lies beside the locks.
    ///
    /// With --json it prints a document a second, one a line, instead of a screen.
    #[command(after_help = TOP_REFERENCE, after_long_help = TOP_REFERENCE)]
    Top(Top),
    /// Ask holders to let go, or end a hold by force
    ///
    /// Records a request that holders hear of, and waits until those asked have let go; interrupted, it takes the request
    /// back. `tenure lock` tells who asks and why, and with `--on-revocation term` does as it is asked. Holders that are
    /// not of this crate do not hear of it.
    ///
    /// With --force it ends the hold with that token at once: a command under `tenure lock` is killed, and one under
    /// `etcdctl lock` goes on beside the next.
    #[command(after_help = REVOKE_EXAMPLES, after_long_help = REVOKE_EXAMPLES)]
    Revoke(Revoke),
    /// Print completions for a shell
    Completions {
        /// Which shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or that of a command, in roff
    Man {
        /// Of which command.
        command: Option<String>,
    },
}

const LOCK_EXAMPLES: &str = "\
Examples:
  tenure lock jobs/reindex -- ./reindex --all     one at a time, in the order of arrival
  tenure lock --try jobs/reindex -- ./reindex     now, or not at all (124)
  tenure lock --timeout 3s jobs/reindex -- ...    within three seconds, or not at all (124)
  tenure lock --shared config -- cat config.yml   beside other readers
  tenure lock --permits 4 gpu -- ./train          four at a time
  tenure lock jobs/reindex                        until Ctrl-C

`tenure --help` lists exit codes and the environment.";

const ELECT_EXAMPLES: &str = "\
Examples:
  tenure elect scheduler 10.0.0.7:8080 -- ./scheduler
  tenure observe scheduler

`tenure --help` lists exit codes and the environment.";

const TOP_REFERENCE: &str = "\
Columns:
  NAME     what is held or waited for
  KIND     mutex, election, read, write, semaphore: of the first in the queue
  HOLD     how many hold: several readers may, and as many as a semaphore has permits for
  WAIT     how many wait
  HELD BY  who holds, the first one first
  AGE      since when the first holder has asked for it, by its own clock; elections and other
           clients do not say
  LEASE    what remains of the first holder's lease: so long others wait if it vanishes now.
           Asked for every second at most, 20 leases a second; - if etcd does not tell
  H-OFF/S  hand-offs a second: how often somebody new holds, over the last 5 seconds.
           A name stays listed for so long after its last holder

Keys:
  s                 sort by activity (hand-offs, then waiters), by waiters, by name
  /                 filter: only names that contain what is typed; Enter keeps it, Esc drops it
  Enter, Right      open a name: its queue in order, with tokens, leases and values
  Esc, Left         back; Esc in the list quits
  arrows, j, k, PageUp, PageDown, Home, End
  q, Ctrl-C         quit

Examples:
  tenure top jobs/
  tenure top --json --count 10 | jq '.names[] | select(.waiting > 100) | .name'

With NO_COLOR set it uses no colour.";

const REVOKE_EXAMPLES: &str = "\
Examples:
  tenure revoke jobs/reindex --reason 'the disk is full'
  tenure show jobs/reindex                        tells tokens
  tenure revoke jobs/reindex --force 1234";

#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Only names that begin with this.
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// With --json: end after so many documents, rather than with Ctrl-C.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// The lock or the office.
    pub(crate) name: String,
    /// Why, in your own words.
    #[arg(long, default_value = "by `tenure revoke`")]
    pub(crate) reason: String,
    /// Wait so long at most until they have let go (124), in the notation of `lock`.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// End the hold with this token, and no other, without asking.
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["reason", "timeout"])]
    pub(crate) force: Option<FencingToken>,
    /// Who asks [default: HOST:PID].
    #[arg(long)]
    pub(crate) identity: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Lock {
    /// What to lock: a path such as `jobs/reindex`.
    pub(crate) name: String,
    /// For reading, beside other readers.
    #[arg(long, conflicts_with = "permits")]
    pub(crate) shared: bool,
    /// As a semaphore with so many permits in all.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) permits: Option<u32>,
    /// How many of the permits to take.
    #[arg(long, value_name = "W", requires = "permits", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Debug, Args)]
pub(crate) struct Elect {
    /// The office: a path such as `scheduler`.
    pub(crate) name: String,
    /// What the leader proclaims, such as its address.
    pub(crate) value: String,
    #[command(flatten)]
    pub(crate) how: How,
}

/// How to wait and how to hold.
#[derive(Debug, Args)]
pub(crate) struct How {
    /// Now, or not at all.
    #[arg(long = "try", conflicts_with = "timeout")]
    pub(crate) now: bool,
    /// Wait so long at most: 3s, 500ms, 1m30s, or a number of seconds.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// How long a crash keeps others waiting: whole seconds, with a command 3s at least.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) ttl: Duration,
    /// What to be called in queues [default: HOST:PID].
    #[arg(long)]
    pub(crate) identity: Option<String>,
    /// What to do with the command a quarter of the TTL before the deadline: SIGTERM, or nothing yet. SIGKILL follows either.
    #[arg(long, value_enum, default_value_t = OnJeopardy::Term)]
    pub(crate) on_jeopardy: OnJeopardy,
    /// What to do when somebody asks to let go (`tenure revoke`): end, the command by SIGTERM, or only tell.
    #[arg(long, value_enum, default_value_t = OnRevocation::Ignore)]
    pub(crate) on_revocation: OnRevocation,
    /// The command to run while it is held.
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnJeopardy {
    /// SIGTERM, so that it can end in good order.
    Term,
    /// Nothing, in the hope that etcd comes back in time.
    Ignore,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnRevocation {
    /// SIGTERM to the command; without one, let go.
    Term,
    /// Only tell who asks, and why: whether a command may be ended half-way is for its owner to say.
    Ignore,
}

fn duration(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text).map_err(|error| error.to_string()),
    }
}
