//! Who is at work on a backup, and how it is taken over.

use chrono::Utc;
use cinderblock::vault::{Owned, Report, Stage, TakenOver, Work, Worker};
use uuid::Uuid;

use crate::{new_id, vault};

/// Of one host.
fn workers<const COUNT: usize>() -> [Worker; COUNT] {
    let host = format!("host-{}", new_id());
    std::array::from_fn(|_| Worker {
        host: host.clone(),
        id: Uuid::new_v4(),
    })
}

#[tokio::test]
async fn what_a_dead_worker_was_at_work_on_is_taken_over_once() {
    let vault = vault();
    let [first, second, third] = workers();
    let backup = new_id().parse().expect("an id");
    let target = new_id().parse().expect("an id");
    let owner = async || vault.owner(backup).await.expect("asked");
    vault.show_life(&first).await.expect("shown");
    let owned = vault.own_unless_owned(backup, &first, target).await;
    assert_eq!(owned.expect("owned"), Owned::Yes { left: None });

    // Not while it lives.
    let taken = vault
        .take_over(backup, &second.host, &second, None)
        .await
        .expect("asked");
    assert_eq!(taken, TakenOver::By(first.clone()));
    vault.end_life(&first).await.expect("ended");
    let after = |deaths, stage| TakenOver::After {
        deaths,
        target: Some(target),
        stage,
    };
    // Also where the same question is carried out twice.
    for _ in 0..2 {
        let taken = vault
            .take_over(backup, &second.host, &second, None)
            .await
            .expect("taken");
        assert_eq!(taken, after(1, Stage::Begun));
    }
    let stage = async || vault.stage(backup).await.expect("asked");
    assert_eq!(stage().await, Some(Stage::Begun));
    for owned in [Stage::Prepared, Stage::Begun] {
        let owning = vault.own(backup, &second, owned).await;
        owning.expect("owned");
        assert_eq!(stage().await, Some(Stage::Prepared));
    }
    let taken = vault
        .take_over(backup, &third.host, &third, None)
        .await
        .expect("taken");
    assert_eq!(taken, after(2, Stage::Prepared));
    assert_eq!(owner().await, Some(third.clone()));

    vault.survive(backup, &third).await.expect("survived");
    vault.disown(backup, &second).await.expect("asked");
    assert_eq!(owner().await, Some(third.clone()));
    let taken = vault
        .take_over(backup, &first.host, &first, None)
        .await
        .expect("taken");
    assert_eq!(taken, after(1, Stage::Prepared));
    vault.disown(backup, &first).await.expect("disowned");
    assert_eq!(owner().await, None);
}

#[tokio::test]
async fn a_volume_is_not_forgotten_to_which_a_worker_restored_that_died() {
    let vault = vault();
    let [first, second] = workers();
    let backup = new_id().parse().expect("an id");
    let [one, other] = [(); 2].map(|()| new_id().parse().expect("an id"));
    let own = async |worker: &Worker, target| {
        let owning = vault.own_unless_owned(backup, worker, target);
        owning.await.expect("asked")
    };
    let nothing_left = Owned::Yes { left: None };
    vault.show_life(&first).await.expect("shown");
    assert_eq!(own(&first, one).await, nothing_left);
    assert_eq!(own(&second, other).await, Owned::By(first.clone()));
    vault.end_life(&first).await.expect("ended");
    assert_eq!(own(&second, other).await, Owned::Yes { left: Some(one) });
    assert_eq!(own(&second, other).await, nothing_left);
    // Its own has ended.
    assert_eq!(own(&second, one).await, nothing_left);
    vault.disown(backup, &second).await.expect("disowned");
}

#[tokio::test]
async fn what_a_living_worker_of_another_host_has_taken_over_is_left_to_it() {
    let vault = vault();
    let ([one], [other]) = (workers(), workers());
    let backup = new_id().parse().expect("an id");
    vault.own(backup, &one, Stage::Begun).await.expect("owned");
    // It is back, and has not said yet what it is at.
    let unsaid = new_id().parse().expect("an id");
    vault.show_life(&one).await.expect("shown");
    for backup in [backup, unsaid] {
        let taken = vault.take_over(backup, &one.host, &other, None).await;
        assert_eq!(taken.expect("asked"), TakenOver::By(one.clone()));
    }
    vault.end_life(&one).await.expect("ended");
    vault.show_life(&other).await.expect("shown");
    let taken = vault.take_over(backup, &one.host, &other, None).await;
    taken.expect("taken");
    let owning = vault.own(backup, &one, Stage::Prepared).await;
    owning.expect("asked");
    let owner = async || vault.owner_and_target(backup).await.expect("asked");
    assert_eq!(owner().await, Some((other.clone(), None)));
    vault.end_life(&other).await.expect("ended");
    let owning = vault.own(backup, &one, Stage::Prepared).await;
    owning.expect("owned");
    assert_eq!(owner().await, Some((one.clone(), None)));
    vault.disown(backup, &one).await.expect("disowned");
}

#[tokio::test]
async fn of_two_hosts_that_take_over_at_a_time_one_does() {
    let vault = vault();
    let [dead] = workers();
    let ([one], [other]) = (workers(), workers());
    let target = Some(new_id().parse().expect("an id"));
    assert!(!vault.knows(&dead.host).await.expect("asked"));
    vault.show_life(&dead).await.expect("shown");
    vault.end_life(&dead).await.expect("ended");
    assert!(vault.knows(&dead.host).await.expect("asked"));
    for worker in [&one, &other] {
        vault.show_life(worker).await.expect("shown");
    }
    for recorded in [true, false] {
        let backup = new_id().parse().expect("an id");
        if recorded {
            let owning = vault.own(backup, &dead, Stage::Begun).await;
            owning.expect("owned");
        }
        let take = |worker| vault.take_over(backup, &dead.host, worker, target);
        let (mine, its) = tokio::join!(take(&one), take(&other));
        let after = TakenOver::After {
            deaths: 1,
            target,
            stage: Stage::Begun,
        };
        let (mine, its) = (mine.expect("asked"), its.expect("asked"));
        let taken = match mine == after {
            true => [(mine, &one), (its, &other)],
            false => [(its, &other), (mine, &one)],
        };
        assert_eq!(taken[0].0, after);
        assert_eq!(taken[1].0, TakenOver::By(taken[0].1.clone()));
        vault.disown(backup, taken[0].1).await.expect("disowned");
    }
}

#[tokio::test]
async fn what_a_worker_tells_of_its_work_is_seen_for_as_long_as_it_is_at_it() {
    let vault = vault();
    let [first, second] = workers();
    let backup = new_id().parse().expect("an id");
    let report = Report {
        phase: "moving_data".to_owned(),
        begun_at: Utc::now(),
        reported_at: Utc::now(),
        bytes_done: Some(1),
        bytes_planned: Some(2),
        bytes_per_second: None,
        seconds_left: None,
    };
    let tell = async |worker| {
        let told = vault.report(backup, worker, report.clone()).await;
        told.expect("told");
    };
    let seen = async || vault.work(backup).await.expect("asked");
    let work = |worker: &Worker, lives, report: Option<&Report>| {
        Some(Work {
            worker: worker.clone(),
            lives,
            stage: Stage::Begun,
            report: report.cloned(),
        })
    };
    // Of what nobody is recorded to be at nothing is left behind.
    tell(&first).await;
    assert_eq!(seen().await, None);

    vault.show_life(&first).await.expect("shown");
    vault
        .own(backup, &first, Stage::Begun)
        .await
        .expect("owned");
    assert_eq!(seen().await, work(&first, true, None));
    tell(&first).await;
    assert_eq!(seen().await, work(&first, true, Some(&report)));
    vault.end_life(&first).await.expect("ended");
    assert_eq!(seen().await, work(&first, false, Some(&report)));

    vault.show_life(&second).await.expect("shown");
    vault
        .take_over(backup, &second.host, &second, None)
        .await
        .expect("taken");
    assert_eq!(seen().await, work(&second, true, None));
    vault.disown(backup, &second).await.expect("disowned");
    assert_eq!(seen().await, None);
}
