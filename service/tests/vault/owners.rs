//! Who is at work on a backup, and how it is taken over.

use cinderblock::vault::{Stage, TakenOver, Worker};
use uuid::Uuid;

use crate::{new_id, vault};

#[tokio::test]
async fn what_a_dead_worker_was_at_work_on_is_taken_over_once() {
    let vault = vault();
    let host = format!("host-{}", new_id());
    let worker = || Worker {
        host: host.clone(),
        id: Uuid::new_v4(),
    };
    let [first, second, third] = [worker(), worker(), worker()];
    let backup = new_id().parse().expect("an id");
    let target = new_id().parse().expect("an id");
    let owner = async || vault.owner(backup).await.expect("asked");
    vault.show_life(&first).await.expect("shown");
    let owned = vault.own_unless_owned(backup, &first, target).await;
    assert_eq!(owned.expect("owned"), None);

    // Not while it lives.
    let taken = vault.take_over(backup, &second).await.expect("asked");
    assert_eq!(taken, TakenOver::By(first.clone()));
    vault.end_life(&first).await.expect("ended");
    let after = |deaths| TakenOver::After {
        deaths,
        target: Some(target),
    };
    // Also where the same question is carried out twice.
    for _ in 0..2 {
        let taken = vault.take_over(backup, &second).await.expect("taken");
        assert_eq!(taken, after(1));
    }
    let stage = async || vault.stage(backup).await.expect("asked");
    assert_eq!(stage().await, Some(Stage::Begun));
    for owned in [Stage::Prepared, Stage::Begun] {
        let owning = vault.own(backup, &second, owned).await;
        owning.expect("owned");
        assert_eq!(stage().await, Some(Stage::Prepared));
    }
    let taken = vault.take_over(backup, &third).await.expect("taken");
    assert_eq!(taken, after(2));
    assert_eq!(owner().await, Some(third.clone()));

    vault.survive(backup, &third).await.expect("survived");
    vault.disown(backup, &second).await.expect("asked");
    assert_eq!(owner().await, Some(third.clone()));
    let taken = vault.take_over(backup, &first).await.expect("taken");
    assert_eq!(taken, after(1));
    vault.disown(backup, &first).await.expect("disowned");
    assert_eq!(owner().await, None);
}
