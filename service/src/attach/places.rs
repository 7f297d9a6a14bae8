//! Where volumes in Ceph lie, as far as cinder-volume has told lately.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use api_compat::ids::VolumeId;
use api_compat::objects::Volume;
use api_compat::rpc::RbdConnection;

/// How many are remembered.
const MOST: usize = 4096;

/// A volume, with what its row says of where it is: a volume that is moved gets another host or name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Known {
    volume: VolumeId,
    host: Option<String>,
    name: Option<VolumeId>,
}

impl Known {
    fn of(volume: &Volume) -> Self {
        Self {
            volume: volume.id,
            host: volume.host.clone(),
            name: volume.name_id,
        }
    }
}

/// An image.
struct Place {
    pool: String,
    image: String,
}

/// The places of volumes.
#[derive(Default)]
pub struct Places(Mutex<Told>);

#[derive(Default)]
struct Told {
    places: HashMap<Known, Place>,
    /// How a host's images are reached, as was told last: monitors come and go, and keys are replaced.
    ways: HashMap<Option<String>, RbdConnection>,
}

impl Places {
    /// Where a volume lies; none if that is not known, or was so before it moved.
    pub fn find(&self, volume: &Volume) -> Option<RbdConnection> {
        let told = self.lock();
        let place = told.places.get(&Known::of(volume))?;
        let way = told.ways.get(&volume.host)?;
        Some(RbdConnection {
            pool: place.pool.clone(),
            image: place.image.clone(),
            ..way.clone()
        })
    }

    /// Remembers where a volume lies.
    pub fn remember(&self, volume: &Volume, connection: RbdConnection) {
        let mut told = self.lock();
        if told.places.len() >= MOST {
            // They are asked for again.
            *told = Told::default();
        }
        let place = Place {
            pool: connection.pool.clone(),
            image: connection.image.clone(),
        };
        told.places.insert(Known::of(volume), place);
        told.ways.insert(volume.host.clone(), connection);
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn volume(id: u128, host: &str) -> Volume {
        let row = json!({"id": Uuid::from_u128(id), "host": host});
        serde_json::from_value(row).expect("a volume")
    }

    fn connection(pool: &str) -> RbdConnection {
        RbdConnection {
            pool: pool.to_owned(),
            image: "volume-1".to_owned(),
            monitors: Vec::new(),
            cluster_name: "ceph".to_owned(),
            auth_username: None,
            keyring: None,
        }
    }

    #[test]
    fn a_volume_that_has_moved_is_asked_for_again() {
        let places = Places::default();
        let found = |volume: &Volume| places.find(volume).map(|it| it.pool);
        let mut one = volume(1, "node@ceph#ceph");
        places.remember(&one, connection("volumes"));
        assert_eq!(found(&one).as_deref(), Some("volumes"));
        assert_eq!(found(&volume(1, "node@other#other")), None);
        assert_eq!(found(&volume(2, "node@ceph#ceph")), None);
        one.name_id = Some(Uuid::from_u128(3).into());
        assert_eq!(found(&one), None);
    }

    #[test]
    fn a_volume_is_reached_as_was_told_last_of_its_host() {
        let places = Places::default();
        places.remember(&volume(1, "node"), connection("volumes"));
        let mut later = connection("others");
        later.monitors = vec!["192.0.2.7:6789".to_owned()];
        places.remember(&volume(2, "node"), later.clone());
        let found = places.find(&volume(1, "node")).expect("known");
        assert_eq!(
            (found.pool.as_str(), found.monitors),
            ("volumes", later.monitors)
        );
    }

    #[test]
    fn there_is_an_end_to_what_is_remembered() {
        let places = Places::default();
        for id in 0..=MOST as u128 {
            places.remember(&volume(id, "node"), connection("volumes"));
        }
        assert_eq!(places.lock().places.len(), 1);
    }
}
