// SPDX-License-Identifier: GPL-2.0-or-later
//! The bodies of the section `ram`, version 4: passed over, and counted.
//!
//! Each item is a be64: a page's address within its block, with flags in the bits below the page size. Source:
//! `ram_load_precopy` and `ram_load_postcopy` in migration/ram.c of QEMU 7.2 to 10.2.

use crate::fault::Fault;
use crate::input::Input;
use serde::Serialize;

/// The only version that these QEMUs write.
pub const VERSION: u32 = 4;
/// That of every ppc64 target (TARGET_PAGE_BITS in target/ppc/cpu-param.h).
const PAGE: u64 = 4096;

const ZERO: u64 = 0x002;
const SIZES: u64 = 0x004;
const WHOLE: u64 = 0x008;
const END: u64 = 0x010;
/// The page is in the same block as the one before it, whose name is left out.
const CONTINUE: u64 = 0x020;
const XBZRLE: u64 = 0x040;
const HOOK: u64 = 0x080;
/// Up to QEMU 9.0.
const COMPRESSED: u64 = 0x100;
const MULTIFD_FLUSH: u64 = 0x200;

/// `ENCODING_FLAG_XBZRLE`.
const XBZRLE_HEADER: u8 = 1;
/// `MAPPED_RAM_HDR_VERSION`.
const MAPPED_VERSION: u32 = 1;

/// What capabilities of the migration say about the format.
#[derive(Clone, Copy, Default)]
pub struct Format {
    /// x-ignore-shared: each block's address follows its size.
    pub addresses: bool,
    /// mapped-ram: pages have fixed places in the file.
    pub mapped: bool,
    /// postcopy-ram: the page size of a block follows where it is not the host's own.
    pub page_sizes: bool,
}

/// What there was of RAM.
#[derive(Clone, Default, Serialize)]
pub struct Ram {
    /// Bytes of the guest's blocks.
    pub size: u64,
    /// Bytes of the section's bodies.
    pub bytes: u64,
    pub pages: u64,
    pub zero_pages: u64,
    pub xbzrle_pages: u64,
    pub compressed_pages: u64,
    /// Pages have fixed places in the file and are not counted.
    pub mapped: bool,
    #[serde(skip)]
    blocks: Vec<String>,
}

impl Ram {
    /// One body.
    pub fn pass(&mut self, input: &mut Input, format: Format) -> Result<(), Fault> {
        let begin = input.offset();
        loop {
            let at = input.offset();
            let item = input.be64("an item of RAM")?;
            let (address, flags) = (item & !(PAGE - 1), item & (PAGE - 1));
            match flags & !CONTINUE {
                SIZES => self.sizes(input, address, format)?,
                END => break,
                MULTIFD_FLUSH => {}
                kind @ (ZERO | WHOLE | XBZRLE | COMPRESSED) => {
                    if flags & CONTINUE == 0 {
                        self.block(input)?;
                    } else if self.pages_seen() == 0 {
                        return Err(Fault::new(at, "a page of RAM that belongs to no block"));
                    }
                    self.page(input, kind)?;
                }
                HOOK => return Err(Fault::new(at, "a migration by RDMA: its RAM is not in this file")),
                _ => {
                    return Err(Fault::new(
                        at,
                        format!("RAM with flags 0x{flags:03x}, which no QEMU writes"),
                    ));
                }
            }
        }
        self.bytes += input.offset() - begin;
        Ok(())
    }

    fn pages_seen(&self) -> u64 {
        self.pages + self.zero_pages + self.xbzrle_pages + self.compressed_pages
    }

    fn block(&mut self, input: &mut Input) -> Result<(), Fault> {
        let at = input.offset();
        let name = input.name("a RAM block's name")?;
        if self.blocks.contains(&name) {
            return Ok(());
        }
        Err(Fault::new(at, format!("a page of a RAM block {name} that was not announced")))
    }

    fn page(&mut self, input: &mut Input, kind: u64) -> Result<(), Fault> {
        match kind {
            ZERO => {
                input.skip(1, "a page of zeros")?;
                self.zero_pages += 1;
            }
            WHOLE => {
                input.skip(PAGE, "a page of RAM")?;
                self.pages += 1;
            }
            XBZRLE => {
                let at = input.offset();
                let header = input.byte("a page's XBZRLE header")?;
                let len = u64::from(input.be16("a page's XBZRLE header")?);
                if header != XBZRLE_HEADER || len > PAGE {
                    return Err(Fault::new(at, format!("an XBZRLE header of type {header} and {len} bytes")));
                }
                input.skip(len, "a page of XBZRLE")?;
                self.xbzrle_pages += 1;
            }
            _ => {
                let at = input.offset();
                let len = u64::from(input.be32("a compressed page's size")?);
                // zlib makes of a page a few bytes more at most.
                if len > 2 * PAGE {
                    return Err(Fault::new(at, format!("a compressed page of {len} bytes")));
                }
                input.skip(len, "a compressed page")?;
                self.compressed_pages += 1;
            }
        }
        Ok(())
    }

    /// The list of blocks, in the first body.
    fn sizes(&mut self, input: &mut Input, total: u64, format: Format) -> Result<(), Fault> {
        self.size = total;
        self.mapped |= format.mapped;
        let mut left = total;
        while left > 0 {
            let at = input.offset();
            let name = input.name("a RAM block's name")?;
            let size = input.be64("a RAM block's size")?;
            left = left.checked_sub(size).ok_or_else(|| {
                Fault::new(at, format!("RAM block {name} of {size} bytes, with {left} of all RAM left"))
            })?;
            if format.page_sizes {
                // A name begins with its length and an item ends with flags: neither looks like a page size.
                let next = input.peek()?.map_or(0, u64::from_be_bytes);
                if next.is_power_of_two() && next >= PAGE {
                    input.be64("a RAM block's page size")?;
                }
            }
            if format.addresses {
                input.be64("a RAM block's address")?;
            }
            if format.mapped {
                pass_mapped(input, &name, size)?;
            }
            self.blocks.push(name);
        }
        Ok(())
    }
}

/// A block of mapped-ram: its header says where its pages are; the stream continues behind them.
fn pass_mapped(input: &mut Input, name: &str, size: u64) -> Result<(), Fault> {
    let at = input.offset();
    let version = input.be32("a mapped RAM block's header")?;
    if version != MAPPED_VERSION {
        return Err(Fault::new(
            at,
            format!("mapped RAM of version {version}; only {MAPPED_VERSION} is known"),
        ));
    }
    input.be64("a mapped RAM block's page size")?;
    input.be64("where a mapped RAM block's bitmap is")?;
    let pages = input.be64("where a mapped RAM block's pages are")?;
    let end = pages.checked_add(size).filter(|_| pages >= input.offset());
    let Some(end) = end else {
        return Err(Fault::new(at, format!("pages of RAM block {name} at byte {pages}, before its header")));
    };
    input.skip(end - input.offset(), "a mapped RAM block")
}
