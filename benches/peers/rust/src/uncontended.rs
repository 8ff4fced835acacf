//! Lock and unlock of what nobody else wants.

use std::time::Instant;

use crate::{Probe, Report, Result, Sample, Session, Uncontended, unique};

pub async fn run(flags: &Uncontended, mut session: impl Session, report: &mut Report) -> Result<()> {
    let name = unique("uncontended");
    let (mut lock, mut unlock, mut cycle) = (Sample::default(), Sample::default(), Sample::default());
    let mut before = Probe::take(&flags.settings).await?;
    for i in 0..flags.warmup + flags.n {
        if i == flags.warmup {
            before = Probe::take(&flags.settings).await?;
        }
        let start = Instant::now();
        let held = session.lock(&name).await?;
        let locked = Instant::now();
        session.unlock(held).await?;
        let end = Instant::now();
        if i >= flags.warmup {
            lock.add(locked - start);
            unlock.add(end - locked);
            cycle.add(end - start);
        }
    }
    let after = Probe::take(&flags.settings).await?;
    report.set("n", flags.n);
    report.set("lock", lock.summary());
    report.set("unlock", unlock.summary());
    report.set("cycle", cycle.summary());
    report.set("lock_ops_s", lock.per_second());
    report.set("unlock_ops_s", unlock.per_second());
    report.set("cycles_s", cycle.per_second());
    report.set("cost", after.cost(&before, flags.n));
    session.close().await
}
