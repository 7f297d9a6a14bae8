//! RADOS objects.

use std::time::Duration;

use cinderblock::rbd::ErrorKind;

use crate::ceph_lab::{MIB, Noise, assert_same, unique, volumes};
use crate::kind;

#[tokio::test]
async fn objects_are_read_and_written_whole() {
    let site = volumes().await;
    let name = unique("object");
    let pool = &site.pool;
    assert_eq!(pool.read_object(&name, 10).await.expect("read"), None);
    assert_eq!(pool.object_size(&name).await.expect("stat"), None);
    assert!(!pool.remove_object(&name).await.expect("remove"));

    let long = Noise::new(4).bytes(2 * MIB + 5);
    pool.write_object(&name, &long).await.expect("write");
    let read = pool.read_object(&name, long.len()).await.expect("read");
    assert_same(&read.expect("it exists"), &long);
    assert_eq!(
        kind(pool.read_object(&name, long.len() - 1).await),
        ErrorKind::TooLarge
    );

    pool.write_object(&name, b"short").await.expect("write");
    let read = pool.read_object(&name, 5).await.expect("read");
    assert_eq!(read.as_deref(), Some(b"short".as_slice()));
    assert_eq!(pool.object_size(&name).await.expect("stat"), Some(5));

    assert!(pool.remove_object(&name).await.expect("remove"));

    pool.write_object(&name, b"").await.expect("write");
    let read = pool.read_object(&name, 0).await.expect("read");
    assert_eq!(read.as_deref(), Some(b"".as_slice()));
    assert!(pool.remove_object(&name).await.expect("remove"));
}

#[tokio::test]
async fn attributes_are_of_objects_that_exist() {
    let site = volumes().await;
    let (pool, name) = (&site.pool, unique("attributes"));
    let set = async |value: &[u8]| pool.set_attribute(&name, "a", value).await.expect("set");
    let get = async |limit| pool.attribute(&name, "a", limit).await;
    assert!(!set(b"value").await);
    assert_eq!(pool.object_size(&name).await.expect("stat"), None);
    assert_eq!(get(10).await.expect("got"), None);

    pool.write_object(&name, b"").await.expect("write");
    assert_eq!(get(10).await.expect("got"), None);
    assert!(set(b"value").await);
    assert_eq!(
        get(5).await.expect("got").as_deref(),
        Some(b"value".as_slice())
    );
    assert_eq!(kind(get(4).await), ErrorKind::InvalidArgument);
    assert!(set(b"").await);
    assert_eq!(get(5).await.expect("got").as_deref(), Some(b"".as_slice()));
    assert!(pool.remove_object(&name).await.expect("remove"));
}

#[tokio::test]
async fn an_object_is_replaced_unless_it_is_something_else_by_now() {
    let site = volumes().await;
    let (pool, name) = (&site.pool, unique("replaced"));
    let replace = async |held: &[u8], content: &[u8]| {
        let replaced = pool.replace_object(&name, held, content).await;
        replaced.expect("an answer")
    };
    let read = async || pool.read_object(&name, 100).await.expect("read");
    assert!(!replace(b"", b"one").await);
    assert_eq!(read().await, None, "none was made");
    pool.write_object(&name, b"one").await.expect("write");
    for other in [&b"two"[..], b"ones", b"xone", b"on", b""] {
        assert!(!replace(other, b"three").await, "{other:?}");
    }
    assert_eq!(read().await.as_deref(), Some(&b"one"[..]));
    assert!(replace(b"one", b"a").await);
    assert_eq!(read().await.as_deref(), Some(&b"a"[..]));
    assert!(pool.remove_object(&name).await.expect("remove"));
}

#[tokio::test]
async fn a_lease_lasts_until_its_time_is_over_or_it_is_given_back() {
    let site = volumes().await;
    let (pool, name) = (&site.pool, unique("lease"));
    let holders = || async {
        let mut holders = pool.lease_holders(&name).await.expect("list");
        holders.sort();
        holders
    };
    assert!(holders().await.is_empty());
    pool.end_lease(&name, "one").await.expect("nothing to end");

    let hour = Duration::from_secs(3600);
    pool.hold_lease(&name, "one", hour).await.expect("hold");
    pool.hold_lease(&name, "two", hour).await.expect("hold");
    assert_eq!(holders().await, ["one", "two"]);
    // Renewed, for a shorter time.
    let moment = Duration::from_millis(300);
    pool.hold_lease(&name, "two", moment).await.expect("renew");
    for _ in 0..100 {
        if holders().await == ["one"] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(holders().await, ["one"]);
    pool.end_lease(&name, "one").await.expect("end");
    assert!(holders().await.is_empty());
    assert!(pool.remove_object(&name).await.expect("remove"));
}

#[tokio::test]
async fn one_has_its_turn_until_it_ends_it_or_its_time_is_over() {
    let site = volumes().await;
    let (pool, name) = (&site.pool, unique("turn"));
    let take = async |holder, lasts| pool.take_turn(&name, holder, lasts).await.expect("take");
    pool.end_turn(&name, "one").await.expect("nothing to end");

    let hour = Duration::from_secs(3600);
    assert!(take("one", hour).await);
    assert!(!take("two", hour).await);
    assert!(!take("one", hour).await);
    // Whoever does not have it ends nothing; a lease on the same object is something else.
    pool.end_turn(&name, "two").await.expect("end");
    pool.hold_lease(&name, "two", hour).await.expect("hold");
    assert!(!take("two", hour).await);
    pool.end_turn(&name, "one").await.expect("end");
    assert!(take("two", Duration::from_millis(300)).await);
    let mut taken = false;
    for _ in 0..100 {
        taken = take("one", hour).await;
        if taken {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(taken);
    assert!(pool.remove_object(&name).await.expect("remove"));
}
