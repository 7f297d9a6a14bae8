//! librbd's C functions, as far as they are used here.
//!
//! Written by hand from `rbd/librbd.h`: every function exists since librbd 1.16 (Ceph 16), and the
//! C interface has only grown since. Handles are opaque pointers; the structures are declared
//! field by field.

use std::ffi::{CStr, c_char, c_int, c_void};

use ceph::rados::{rados_ioctx_t, rados_write_op_t};

pub(super) type RbdImage = *mut c_void;
pub(super) type RbdCompletion = *mut c_void;
pub(super) type RbdImageOptions = *mut c_void;
pub(super) type RbdCallback =
    unsafe extern "C" fn(completion: RbdCompletion, argument: *mut c_void);
pub(super) type RbdDiffCallback =
    unsafe extern "C" fn(offset: u64, length: usize, exists: c_int, argument: *mut c_void) -> c_int;

/// `rbd_snap_info_t`
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct RbdSnapInfo {
    pub(super) id: u64,
    pub(super) size: u64,
    pub(super) name: *const c_char,
}

/// `rbd_mirror_image_info_t`
#[repr(C)]
pub(super) struct RbdMirrorImageInfo {
    pub(super) global_id: *mut c_char,
    pub(super) state: c_int,
    pub(super) primary: bool,
}

/// `RBD_MIRROR_IMAGE_ENABLED`
pub(super) const MIRROR_ENABLED: c_int = 1;

/// Keys of `rbd_image_options_set_uint64`.
pub(super) const OPTION_FEATURES: c_int = 1;
pub(super) const OPTION_STRIPE_UNIT: c_int = 3;
pub(super) const OPTION_STRIPE_COUNT: c_int = 4;

/// `RBD_FLAG_OBJECT_MAP_INVALID | RBD_FLAG_FAST_DIFF_INVALID`
pub(super) const FLAGS_MAP_INVALID: u64 = 1 | 2;

/// `RBD_LOCK_MODE_EXCLUSIVE`
pub(super) const LOCK_EXCLUSIVE: c_int = 0;

/// `LIBRADOS_OP_FLAG_FADVISE_SEQUENTIAL | LIBRADOS_OP_FLAG_FADVISE_NOCACHE`: what the `rbd` tool
/// gives with bulk transfers, so that they do not push out what guests have cached in the OSDs.
pub(super) const BULK_TRANSFER: c_int = 0x8 | 0x40;

/// `MAX_ERRNO`: what a comparison returns beyond it is where the first byte is that differs.
pub(super) const MAX_ERRNO: c_int = 4095;

#[link(name = "rbd")]
unsafe extern "C" {
    pub(super) fn rbd_open(
        io: rados_ioctx_t,
        name: *const c_char,
        image: *mut RbdImage,
        snapshot: *const c_char,
    ) -> c_int;
    pub(super) fn rbd_open_read_only(
        io: rados_ioctx_t,
        name: *const c_char,
        image: *mut RbdImage,
        snapshot: *const c_char,
    ) -> c_int;
    pub(super) fn rbd_close(image: RbdImage) -> c_int;

    pub(super) fn rbd_image_options_create(options: *mut RbdImageOptions);
    pub(super) fn rbd_image_options_destroy(options: RbdImageOptions);
    pub(super) fn rbd_image_options_set_uint64(
        options: RbdImageOptions,
        key: c_int,
        value: u64,
    ) -> c_int;
    pub(super) fn rbd_create4(
        io: rados_ioctx_t,
        name: *const c_char,
        size: u64,
        options: RbdImageOptions,
    ) -> c_int;
    pub(super) fn rbd_remove(io: rados_ioctx_t, name: *const c_char) -> c_int;

    pub(super) fn rbd_get_size(image: RbdImage, size: *mut u64) -> c_int;
    pub(super) fn rbd_get_features(image: RbdImage, features: *mut u64) -> c_int;
    pub(super) fn rbd_get_flags(image: RbdImage, flags: *mut u64) -> c_int;
    pub(super) fn rbd_get_block_name_prefix(
        image: RbdImage,
        prefix: *mut c_char,
        length: usize,
    ) -> c_int;
    pub(super) fn rbd_get_data_pool_id(image: RbdImage) -> i64;
    pub(super) fn rbd_get_stripe_unit(image: RbdImage, unit: *mut u64) -> c_int;
    pub(super) fn rbd_get_stripe_count(image: RbdImage, count: *mut u64) -> c_int;
    pub(super) fn rbd_stat(image: RbdImage, info: *mut RbdImageInfo, size: usize) -> c_int;
    pub(super) fn rbd_lock_acquire(image: RbdImage, mode: c_int) -> c_int;
    pub(super) fn rbd_mirror_image_get_info(
        image: RbdImage,
        info: *mut RbdMirrorImageInfo,
        size: usize,
    ) -> c_int;
    pub(super) fn rbd_mirror_image_get_info_cleanup(info: *mut RbdMirrorImageInfo);
    pub(super) fn rbd_resize(image: RbdImage, size: u64) -> c_int;

    pub(super) fn rbd_snap_list(
        image: RbdImage,
        snapshots: *mut RbdSnapInfo,
        count: *mut c_int,
    ) -> c_int;
    pub(super) fn rbd_snap_list_end(snapshots: *mut RbdSnapInfo);
    pub(super) fn rbd_snap_create(image: RbdImage, name: *const c_char) -> c_int;
    pub(super) fn rbd_snap_remove(image: RbdImage, name: *const c_char) -> c_int;

    pub(super) fn rbd_diff_iterate2(
        image: RbdImage,
        from_snapshot: *const c_char,
        offset: u64,
        length: u64,
        include_parent: u8,
        whole_object: u8,
        callback: RbdDiffCallback,
        argument: *mut c_void,
    ) -> c_int;

    pub(super) fn rbd_aio_create_completion(
        argument: *mut c_void,
        callback: RbdCallback,
        completion: *mut RbdCompletion,
    ) -> c_int;
    pub(super) fn rbd_aio_get_return_value(completion: RbdCompletion) -> isize;
    pub(super) fn rbd_aio_release(completion: RbdCompletion);
    pub(super) fn rbd_aio_read2(
        image: RbdImage,
        offset: u64,
        length: usize,
        buffer: *mut c_char,
        completion: RbdCompletion,
        flags: c_int,
    ) -> c_int;
    pub(super) fn rbd_aio_write2(
        image: RbdImage,
        offset: u64,
        length: usize,
        buffer: *const c_char,
        completion: RbdCompletion,
        flags: c_int,
    ) -> c_int;
    pub(super) fn rbd_aio_write_zeroes(
        image: RbdImage,
        offset: u64,
        length: usize,
        completion: RbdCompletion,
        zero_flags: c_int,
        flags: c_int,
    ) -> c_int;
    pub(super) fn rbd_aio_flush(image: RbdImage, completion: RbdCompletion) -> c_int;
}

/// `rbd_image_info_t`
#[repr(C)]
pub(super) struct RbdImageInfo {
    pub(super) size: u64,
    pub(super) object_size: u64,
    pub(super) objects: u64,
    pub(super) order: c_int,
    block_name_prefix: [c_char; 24],
    parent_pool: i64,
    parent_name: [c_char; 96],
}

/// `LIBRADOS_CREATE_IDEMPOTENT`
pub(super) const CREATE_IDEMPOTENT: c_int = 0;

/// librbd's `RBD_TRASH`: the object that lists the images of a pool that are being removed.
pub(super) const TRASH: &CStr = c"rbd_trash";

// Not declared by the `ceph` crate, which links librados.
unsafe extern "C" {
    pub(super) fn rados_set_pool_full_try(io: rados_ioctx_t);
    pub(super) fn rados_write_op_cmpext(
        operation: rados_write_op_t,
        compared: *const c_char,
        length: usize,
        offset: u64,
        outcome: *mut c_int,
    );
}
