// SPDX-License-Identifier: GPL-2.0-or-later
//! The kernel's HPT file descriptor: the ioctl that opens it, and its system calls or the host's in their place.

use super::types::SpaprHtabHost;
use crate::error::{Access, Errno};
use crate::host::{HptFd, OpenOptions};
use libc::{c_int, iovec};

/// `struct kvm_get_htab_fd` (Linux 6.1, arch/powerpc/include/uapi/asm/kvm.h).
#[repr(C)]
struct GetHtabFd {
    flags: u64,
    start_index: u64,
    reserved: [u64; 2],
}

const WRITE: u64 = 2;

/// `KVM_PPC_GET_HTAB_FD`, `_IOW(0xAE, 0xaa, struct kvm_get_htab_fd)`. powerpc packs the parts of an ioctl's number
/// unlike most others: 13 bits of size, and 4 for "write" above them (arch/powerpc/include/uapi/asm/ioctl.h).
const GET_HTAB_FD: libc::Ioctl = {
    let write: libc::Ioctl =
        if cfg!(any(target_arch = "powerpc64", target_arch = "powerpc")) { 4 << 29 } else { 1 << 30 };
    let size: libc::Ioctl = 32;
    write | size << 16 | 0xAE << 8 | 0xaa
};
const _: () = assert!(size_of::<GetHtabFd>() == 32);

/// An open fd of the host's.
pub struct HostFd {
    fd: c_int,
    host: SpaprHtabHost,
}

// SAFETY: the host promised that its callbacks, with its opaque pointer, may be called on whichever thread calls the
// library, and read_fd, if it asked for reading ahead, on the library's own; a file descriptor belongs to no thread.
unsafe impl Send for HostFd {}

impl HostFd {
    pub fn open(host: &SpaprHtabHost, options: OpenOptions) -> Result<HostFd, Errno> {
        let flags = if options.access == Access::Write { WRITE } else { 0 };
        let start_index = options.start.0;
        let fd = match host.open_fd {
            // SAFETY: the host promised that its callbacks may be called with its opaque pointer.
            Some(open) => match unsafe { open(host.opaque, flags, start_index) } {
                fd @ 0.. => fd,
                error => return Err(Errno::from_negative(error.into())),
            },
            None if host.vm_fd < 0 => return Err(Errno::new(libc::EBADF)),
            None => {
                let ask = GetHtabFd { flags, start_index, reserved: [0; 2] };
                // SAFETY: the ioctl reads one `struct kvm_get_htab_fd`, which `ask` is, and nothing else of ours.
                match unsafe { libc::ioctl(host.vm_fd, GET_HTAB_FD, &raw const ask) } {
                    fd @ 0.. => fd,
                    _ => return Err(Errno::last()),
                }
            }
        };
        Ok(HostFd { fd, host: *host })
    }
}

fn count(result: i64) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno::from_negative(result))
}

fn system(result: isize) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno::last())
}

impl HptFd for HostFd {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Errno> {
        match self.host.read_fd {
            // SAFETY: the host promised that its callbacks may be called with its opaque pointer; the buffer is ours
            // alone, of that length.
            Some(read) => count(unsafe { read(self.host.opaque, self.fd, buf.as_mut_ptr(), buf.len()) }),
            // SAFETY: the buffer is ours alone, of that length.
            None => system(unsafe { libc::read(self.fd, buf.as_mut_ptr().cast(), buf.len()) }),
        }
    }

    fn write(&mut self, records: &[&[u8]]) -> Result<usize, Errno> {
        let segments: Vec<iovec> = records
            .iter()
            .map(|record| iovec { iov_base: record.as_ptr().cast_mut().cast(), iov_len: record.len() })
            .collect();
        let Ok(number) = c_int::try_from(segments.len()) else { return Err(Errno::new(libc::EINVAL)) };
        match self.host.writev_fd {
            // SAFETY: the host promised that its callbacks may be called with its opaque pointer; each segment is a
            // record that lives until this returns and is only read.
            Some(writev) => count(unsafe { writev(self.host.opaque, self.fd, segments.as_ptr(), number) }),
            // SAFETY: each segment is a record that lives until this returns; writev only reads it.
            None => system(unsafe { libc::writev(self.fd, segments.as_ptr(), number) }),
        }
    }
}

impl Drop for HostFd {
    fn drop(&mut self) {
        match self.host.close_fd {
            // SAFETY: the host promised that its callbacks may be called with its opaque pointer.
            Some(close) => unsafe { close(self.host.opaque, self.fd) },
            None => {
                // SAFETY: the fd was opened by `HostFd::open` and is closed here only.
                let closed = unsafe { libc::close(self.fd) };
                if closed < 0 {
                    log::warn!("spapr/htab: closing the kernel's table: {}", Errno::last());
                }
            }
        }
    }
}
