// SPDX-License-Identifier: GPL-2.0-or-later
//! The real thing: VMs of the KVM-HV that this machine's kernel has.
//!
//! Needs /dev/kvm with kvm-hv, and debugfs at /sys/kernel/debug for [`Vm::dump`].

pub mod cases;
mod sys;
mod vcpu;

use crate::record::{R_C, R_MODIFIED, R_R, V_ABSENT, V_VALID};
use crate::vm::{GuestOp, HtabFd, Vm, VmFactory};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use sys::{DirtyLog, GetHtabFd, MemoryRegion, check};
use vcpu::Vcpu;

/// An open /dev/kvm, to make VMs with.
pub struct Kvm {
    device: Arc<File>,
}

impl Kvm {
    /// # Errors
    /// When /dev/kvm cannot be opened or has no HV VMs.
    pub fn open() -> io::Result<Self> {
        let device = File::options().read(true).write(true).open("/dev/kvm")?;
        let kvm = Kvm { device: Arc::new(device) };
        kvm.vm()?;
        Ok(kvm)
    }

    /// A fresh VM, without a table.
    ///
    /// # Errors
    /// What `KVM_CREATE_VM` gives.
    pub fn vm(&self) -> io::Result<KvmVm> {
        // SAFETY: the ioctl takes its argument by value.
        let fd = unsafe { libc::ioctl(self.device.as_raw_fd(), sys::CREATE_VM, sys::VM_HV) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: gettid only asks.
        let tid = unsafe { libc::gettid() };
        // SAFETY: KVM_CREATE_VM made this fd for us just now; nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // The directory is named by the thread that made the VM.
        let htab = format!("/sys/kernel/debug/kvm/{tid}-{}/htab", fd.as_raw_fd());
        let device = Arc::clone(&self.device);
        Ok(KvmVm { vcpu: Mutex::new(None), fd, device, htab, ram: Mutex::new(None), start: Instant::now() })
    }
}

impl VmFactory for Kvm {
    fn hash(&self, order: u32) -> Result<Box<dyn Vm>, String> {
        let vm = self.vm().map_err(|e| format!("KVM_CREATE_VM: {e}"))?;
        match vm.allocate(order) {
            Ok(granted) if granted == order => Ok(Box::new(vm)),
            other => Err(format!("KVM_PPC_ALLOCATE_HTAB of order {order}: {other:?}")),
        }
    }

    fn radix(&self) -> Result<Option<Box<dyn Vm>>, String> {
        let vm = self.vm().map_err(|e| format!("KVM_CREATE_VM: {e}"))?;
        Ok(if vm.has_capability(sys::CAP_PPC_MMU_RADIX) { Some(Box::new(vm)) } else { None })
    }
}

/// A VM of KVM-HV, without vCPUs until its guest first runs.
pub struct KvmVm {
    vcpu: Mutex<Option<Vcpu>>,
    fd: OwnedFd,
    device: Arc<File>,
    /// Where debugfs shows its table.
    htab: String,
    ram: Mutex<Option<Ram>>,
    start: Instant,
}

impl KvmVm {
    fn has_capability(&self, capability: libc::c_long) -> bool {
        // SAFETY: the ioctl takes its argument by value.
        unsafe { libc::ioctl(self.fd.as_raw_fd(), sys::CHECK_EXTENSION, capability) > 0 }
    }

    fn open_fd(&self, flags: u64, start_index: u64) -> Result<KvmFd, i32> {
        let request = GetHtabFd { flags, start_index, reserved: [0; 2] };
        // SAFETY: the ioctl reads one struct kvm_get_htab_fd, which GetHtabFd has the layout of (asserted by
        // size in sys) and which lives across the call.
        let fd = unsafe { libc::ioctl(self.fd.as_raw_fd(), sys::PPC_GET_HTAB_FD, &raw const request) };
        check(fd as libc::ssize_t)?;
        // SAFETY: KVM_PPC_GET_HTAB_FD made this fd for us just now; nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(KvmFd { fd })
    }

    /// Makes this the guest's memory, or changes whether it is logged.
    fn set_region(&self, ram: &Ram) -> Result<(), i32> {
        let region = MemoryRegion {
            slot: 0,
            flags: if ram.logged { sys::LOG_DIRTY_PAGES } else { 0 },
            guest_phys_addr: 0,
            memory_size: ram.len as u64,
            userspace_addr: ram.address as u64,
        };
        // SAFETY: the ioctl reads one struct kvm_userspace_memory_region, which MemoryRegion has the layout
        // of. The memory it names stays mapped until the VM's fd is closed: the VM's `ram` is dropped after `fd`.
        let ret = unsafe { libc::ioctl(self.fd.as_raw_fd(), sys::SET_USER_MEMORY_REGION, &raw const region) };
        check(ret as libc::ssize_t).map(|_| ())
    }

    /// As [`Vm::open`], for callers that make the system calls themselves.
    ///
    /// # Errors
    /// The errno.
    pub fn open_bare(&self, flags: u64, start_index: u64) -> Result<OwnedFd, i32> {
        Ok(self.open_fd(flags, start_index)?.fd)
    }
}

impl AsFd for KvmVm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Vm for KvmVm {
    fn allocate(&self, order: u32) -> Result<u32, i32> {
        let mut granted = order;
        // SAFETY: the ioctl reads and writes one u32, which lives across the call.
        let ret = unsafe { libc::ioctl(self.fd.as_raw_fd(), sys::PPC_ALLOCATE_HTAB, &raw mut granted) };
        check(ret as libc::ssize_t)?;
        Ok(granted)
    }

    fn open(&self, flags: u64, start_index: u64) -> Result<Box<dyn HtabFd>, i32> {
        Ok(Box::new(self.open_fd(flags, start_index)?))
    }

    fn dump(&self) -> Vec<(u64, u64, u64)> {
        let text = fs::read_to_string(&self.htab).unwrap_or_else(|e| panic!("{}: {e}", self.htab));
        let isa300 = is_isa300();
        text.lines()
            .map(|line| parse_dump_line(line, isa300).unwrap_or_else(|| panic!("{}: {line:?}", self.htab)))
            .collect()
    }

    fn set_ram(&self, bytes: u64) -> Result<(), i32> {
        let mut ram = self.ram.lock().unwrap_or_else(PoisonError::into_inner);
        if ram.is_some() {
            return Err(libc::EEXIST);
        }
        let mapping = Ram::map(bytes)?;
        self.set_region(&mapping)?;
        *ram = Some(mapping);
        Ok(())
    }

    fn read_dirty_log(&self) -> Result<u64, i32> {
        let mut ram = self.ram.lock().unwrap_or_else(PoisonError::into_inner);
        let ram = ram.as_mut().ok_or(libc::ENOENT)?;
        if !ram.logged {
            ram.logged = true;
            self.set_region(ram)?;
        }
        // A bit a host page, which has 4 KiB at least.
        let mut bitmap = vec![0_u64; (ram.len / 4096).div_ceil(64)];
        let log = DirtyLog { slot: 0, padding: 0, bitmap: bitmap.as_mut_ptr().expose_provenance() as u64 };
        // SAFETY: the ioctl reads one struct kvm_dirty_log, which DirtyLog has the layout of, and writes a bit for
        // each page of the slot into `bitmap`, which is large enough for pages of any size.
        let ret = unsafe { libc::ioctl(self.fd.as_raw_fd(), sys::GET_DIRTY_LOG, &raw const log) };
        check(ret as libc::ssize_t)?;
        Ok(bitmap.iter().map(|word| u64::from(word.count_ones())).sum())
    }

    fn guest(&self, op: GuestOp) -> Result<u64, String> {
        let mut vcpu = self.vcpu.lock().unwrap_or_else(PoisonError::into_inner);
        let vcpu = match &mut *vcpu {
            Some(vcpu) => vcpu,
            none => {
                for (address, word) in vcpu::code() {
                    (address..).zip(word.to_ne_bytes()).for_each(|(address, byte)| self.poke(address, byte));
                }
                let made = Vcpu::new(self.device.as_fd(), self.fd.as_fd());
                none.insert(made.map_err(|e| format!("no vCPU: {e}"))?)
            }
        };
        vcpu.run(op)
    }

    fn poke(&self, address: u64, byte: u8) {
        let ram = self.ram.lock().unwrap_or_else(PoisonError::into_inner);
        let ram = ram.as_ref().expect("the guest has memory");
        let offset =
            usize::try_from(address).ok().filter(|&a| a < ram.len).expect("an address in its memory");
        // SAFETY: within the mapping, which lives as long as `ram` is locked and is not ours as memory of any
        // other type; the guest may use the byte at the same time, which a volatile store leaves to it.
        unsafe { std::ptr::with_exposed_provenance_mut::<u8>(ram.address + offset).write_volatile(byte) };
    }

    fn has_htab_fd(&self) -> bool {
        self.has_capability(sys::CAP_PPC_HTAB_FD)
    }

    fn clock_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Memory of this process that is the guest's, from its address 0 up.
struct Ram {
    address: usize,
    len: usize,
    /// Whether the kernel logs its pages.
    logged: bool,
}

impl Ram {
    /// Maps memory and has every page of it present, in pages of the base size.
    fn map(bytes: u64) -> Result<Self, i32> {
        let len = usize::try_from(bytes).map_err(|_| libc::ENOMEM)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping at an address of the kernel's choosing touches nothing we have.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::ENOMEM));
        }
        let ram = Ram { address: address.expose_provenance(), len, logged: false };
        // SAFETY: advice on the mapping made above, for all of its length. A kernel without transparent huge
        // pages refuses it, and needs it not.
        unsafe { libc::madvise(address, len, libc::MADV_NOHUGEPAGE) };
        for offset in (0..len).step_by(4096) {
            // SAFETY: within the mapping made above, which is writable and which nobody else knows of yet.
            unsafe { address.cast::<u8>().add(offset).write_volatile(0) };
        }
        Ok(ram)
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, unmapped once. A VM that an open HPT fd keeps alive finds the
        // memory gone as if it had been paged out: the kernel's MMU notifier reports it.
        unsafe { libc::munmap(self.address as *mut libc::c_void, self.len) };
    }
}

/// A copy of some bytes at the very end of memory that can be written.
struct Guarded {
    mapping: *mut u8,
    /// The whole mapping's length, the page that cannot be accessed included, and where that page begins.
    mapped: usize,
    hole: usize,
    len: usize,
}

impl Guarded {
    fn before_a_hole(bytes: &[u8]) -> Result<Self, i32> {
        assert_eq!(bytes.len() % 8, 0, "a doubleword lies across the end");
        // SAFETY: sysconf only asks.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page = usize::try_from(page).map_err(|_| libc::EINVAL)?;
        let hole = bytes.len().next_multiple_of(page);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping at an address of the kernel's choosing touches nothing we have.
        let mapping = unsafe { libc::mmap(std::ptr::null_mut(), hole + page, libc::PROT_NONE, flags, -1, 0) };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::ENOMEM));
        }
        let guarded = Guarded { mapping: mapping.cast(), mapped: hole + page, hole, len: bytes.len() };
        if hole > 0 {
            // SAFETY: the first pages of the mapping made above.
            let ret = unsafe { libc::mprotect(mapping, hole, libc::PROT_READ | libc::PROT_WRITE) };
            check(ret as libc::ssize_t)?;
        }
        // SAFETY: `len` bytes up to the hole can be written since the call above, and nobody else has them.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), guarded.start(), bytes.len()) };
        Ok(guarded)
    }

    fn start(&self) -> *mut u8 {
        // SAFETY: `len` is at most `hole`, which is within the mapping.
        unsafe { self.mapping.add(self.hole - self.len) }
    }

    /// Into a buffer as long as the one it was made of.
    fn copy_to(&self, buf: &mut [u8]) {
        assert_eq!(buf.len(), self.len);
        // SAFETY: `len` bytes up to the hole can be read, and `buf` is memory of another kind.
        unsafe { std::ptr::copy_nonoverlapping(self.start(), buf.as_mut_ptr(), self.len) };
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `before_a_hole`, unmapped once.
        unsafe { libc::munmap(self.mapping.cast(), self.mapped) };
    }
}

struct KvmFd {
    fd: OwnedFd,
}

impl KvmFd {
    fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl HtabFd for KvmFd {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, i32> {
        // SAFETY: the kernel writes at most `len` bytes from the slice's start, within the slice.
        check(unsafe { libc::read(self.raw(), buf.as_mut_ptr().cast(), buf.len()) })
    }

    fn read_faulting(&mut self, buf: &mut [u8], count: usize) -> Result<usize, i32> {
        let guarded = Guarded::before_a_hole(buf)?;
        // SAFETY: the kernel writes within the mapping as far as it may be written, then finds the hole by its
        // checked access.
        let read = check(unsafe { libc::read(self.raw(), guarded.start().cast(), count) });
        guarded.copy_to(buf);
        read
    }

    fn write(&mut self, buf: &[u8]) -> Result<usize, i32> {
        // SAFETY: the kernel only reads. For a record cut short it reads up to 8 bytes behind the slice, by
        // its own checked access to our memory: EFAULT at worst.
        check(unsafe { libc::write(self.raw(), buf.as_ptr().cast(), buf.len()) })
    }

    fn writev(&mut self, segments: &[&[u8]]) -> Result<usize, i32> {
        let vector: Vec<_> = segments
            .iter()
            .map(|s| libc::iovec { iov_base: s.as_ptr().cast_mut().cast(), iov_len: s.len() })
            .collect();
        let count = libc::c_int::try_from(vector.len()).map_err(|_| libc::EINVAL)?;
        // SAFETY: `vector` holds `count` iovecs, each a live slice that the kernel only reads, as in `write`.
        check(unsafe { libc::writev(self.raw(), vector.as_ptr(), count) })
    }
}

/// Whether the hardware keeps entries in the ISA 3.0 format (`PPC_FEATURE2_ARCH_3_00`).
fn is_isa300() -> bool {
    // SAFETY: getauxval only asks.
    unsafe { libc::getauxval(libc::AT_HWCAP2) & 0x0080_0000 != 0 }
}

/// A line of debugfs's htab: slot, first doubleword and second one as the hardware has them, and the guest's
/// second one (`debugfs_htab_read`).
fn parse_dump_line(line: &str, isa300: bool) -> Option<(u64, u64, u64)> {
    let mut words = line.split_whitespace().map(|word| u64::from_str_radix(word, 16));
    let mut next = || words.next()?.ok();
    let (slot, mut v, hw_r, guest_r) = (next()?, next()?, next()?, next()?);
    let harvest = if v & V_VALID != 0 { hw_r & (R_R | R_C) } else { 0 };
    if isa300 {
        // The segment size moved to bits 58 and 59 of the second doubleword.
        v = v & 0x000f_ffff_ffff_ffff | (hw_r >> 58 & 3) << 62;
    }
    Some((slot, v & !V_ABSENT | V_VALID, (guest_r | harvest) & !R_MODIFIED))
}

#[cfg(test)]
mod tests {
    use super::{parse_dump_line, sys};

    /// Lines seen on Linux 6.1.176.
    #[test]
    fn dump_lines_as_the_kernel_prints_them() {
        let line = "   3e8 0000000000012320 3000000000005f96 0000000000005196";
        assert_eq!(parse_dump_line(line, true), Some((0x3e8, 0x12301, 0x5196)));
        let line = "   5e8 00000000000012a0 3400000000005f92 4000000000005192";
        assert_eq!(parse_dump_line(line, true), Some((0x5e8, 0x4000_0000_0000_1281, 0x5192)));
        assert_eq!(parse_dump_line("   5e8 12a0", true), None);
    }

    #[test]
    fn ioctls_as_the_target_encodes_them() {
        let expected = if cfg!(target_arch = "powerpc64") {
            [0x2000_ae01, 0x8010_ae42, 0xc004_aea7, 0x8020_aeaa]
        } else {
            [0xae01, 0x4010_ae42, 0xc004_aea7, 0x4020_aeaa]
        };
        assert_eq!(
            [sys::CREATE_VM, sys::GET_DIRTY_LOG, sys::PPC_ALLOCATE_HTAB, sys::PPC_GET_HTAB_FD],
            expected
        );
    }
}
