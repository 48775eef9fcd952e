// SPDX-License-Identifier: GPL-2.0-or-later
//! A whole migration stream of QEMU 7.2 to 10.2, as `migrate exec:` and `file:` save it: the sections `spapr/htab` are
//! read, all others passed over.
//!
//! ```text
//! "QEVM" version 3, configuration
//! START of each of ram, spapr/htab, …; PART …; END of each     what is sent while the guest runs, and its last part
//! FULL of each device                                          the guest is stopped
//! EOF, description of the devices' states
//! ```
//!
//! Commands may stand between any two. Source: migration/savevm.c.

mod devices;
pub mod ram;

use crate::bodies::{Bodies, Part};
use crate::fault::Fault;
use crate::input::Input;
use devices::Device;
use ram::{Format, Ram};
use serde::Serialize;
use std::collections::{HashMap, VecDeque};

/// What a stream begins with.
pub const MAGIC: [u8; 4] = *b"QEVM";
const VERSION: u32 = 3;

const END_OF_STREAM: u8 = 0x00;
const START: u8 = 0x01;
const PART: u8 = 0x02;
const END: u8 = 0x03;
const FULL: u8 = 0x04;
const SUBSECTION: u8 = 0x05;
const DESCRIPTION: u8 = 0x06;
const CONFIGURATION: u8 = 0x07;
const COMMAND: u8 = 0x08;
const FOOTER: u8 = 0x7e;

const COMMAND_POSTCOPY_ADVISE: u16 = 3;
const COMMAND_PACKAGED: u16 = 7;
/// One more than the last command, `MIG_CMD_SWITCHOVER_START`.
const COMMANDS: u16 = 12;

/// The description stands within so many bytes from the end; it has some 100 KiB.
const DESCRIPTION_REACH: u64 = 32 << 20;
/// What is kept of a pipe to find the description in.
const MOST_KEPT: u64 = 1 << 30;

/// What there was in a stream, the tables' sections aside.
#[derive(Clone, Default, Serialize)]
pub struct Stream {
    pub machine: String,
    pub ram: Ram,
    /// States of devices that were passed.
    pub devices: u64,
    pub device_bytes: u64,
    /// Bytes behind the stream's end.
    pub trailing: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ram,
    Htab,
}

struct Section {
    kind: Kind,
    version: u32,
    ended: bool,
}

struct Walk<'a> {
    input: &'a mut Input,
    bodies: &'a mut Bodies,
    stream: &'a mut Stream,
    format: Format,
    sections: HashMap<u32, Section>,
    /// The section whose footer may follow.
    last: Option<u32>,
    described: Option<VecDeque<Device>>,
}

/// Walks a stream from its magic to its end; what was found before a fault stays in `bodies` and `stream`.
pub fn walk(input: &mut Input, bodies: &mut Bodies, stream: &mut Stream) -> Result<(), Fault> {
    let at = input.offset();
    let mut magic = [0; 4];
    input.exactly(&mut magic, "the magic number")?;
    if magic != MAGIC {
        return Err(Fault::new(at, "no migration stream: it does not begin with QEVM"));
    }
    let at = input.offset();
    let version = input.be32("the stream's version")?;
    if version != VERSION {
        return Err(Fault::new(at, format!("a stream of version {version}; only {VERSION} is known")));
    }
    let sections = HashMap::new();
    let format = Format::default();
    let mut walk = Walk { input, bodies, stream, format, sections, last: None, described: None };
    while walk.item()? {}
    walk.end()
}

impl Walk<'_> {
    /// One item; whether another one follows.
    fn item(&mut self) -> Result<bool, Fault> {
        let at = self.input.offset();
        let kind = self.input.byte("the next section")?;
        if kind == FOOTER {
            return self.footer(at).map(|()| true);
        }
        self.last = None;
        match kind {
            END_OF_STREAM => return Ok(false),
            CONFIGURATION => self.configuration()?,
            COMMAND => self.command()?,
            START => self.start()?,
            PART => self.more(Part::Live)?,
            END => self.more(Part::Last)?,
            FULL => self.device(at)?,
            _ => return Err(Fault::new(at, format!("a section of type 0x{kind:02x}, which no QEMU writes"))),
        }
        Ok(true)
    }

    fn footer(&mut self, at: u64) -> Result<(), Fault> {
        let id = self.input.be32("a section's footer")?;
        match self.last.take() {
            Some(last) if last == id => Ok(()),
            Some(last) => Err(Fault::new(at, format!("the footer of section {id} behind section {last}"))),
            None => Err(Fault::new(at, format!("a footer of section {id} where none belongs"))),
        }
    }

    fn configuration(&mut self) -> Result<(), Fault> {
        let at = self.input.offset();
        let len = self.input.be32("the machine's name")?;
        let len = usize::try_from(len).ok().filter(|len| *len < 256);
        let Some(len) = len else { return Err(Fault::new(at, "a machine's name of more than 255 bytes")) };
        self.stream.machine = self.input.text(len, "the machine's name")?;
        while self.input.peek()? == Some([SUBSECTION]) {
            let at = self.input.offset();
            self.input.skip(1, "a subsection")?;
            let name = self.input.name("a subsection's name")?;
            self.input.be32("a subsection's version")?;
            match name.as_str() {
                "configuration/target-page-bits" => self.input.skip(4, "the page size")?,
                "configuration/uuid" => self.input.skip(16, "the machine's UUID")?,
                "configuration/capabilities" => self.capabilities()?,
                _ => return Err(Fault::new(at, format!("{name}, which is not known"))),
            }
        }
        Ok(())
    }

    fn capabilities(&mut self) -> Result<(), Fault> {
        for _ in 0..self.input.be32("the number of capabilities")? {
            match self.input.name("a capability's name")?.as_str() {
                "x-ignore-shared" => self.format.addresses = true,
                "mapped-ram" => self.format.mapped = true,
                // The others concern the destination only, and change nothing here.
                _ => {}
            }
        }
        Ok(())
    }

    fn command(&mut self) -> Result<(), Fault> {
        let at = self.input.offset();
        let command = self.input.be16("a command")?;
        let len = self.input.be16("a command's size")?;
        match command {
            COMMAND_PACKAGED if len == 4 => {
                // The states of devices, for postcopy, as a stream of its own.
                let size = self.input.be32("a package's size")?;
                self.input.skip(u64::from(size), "a package")
            }
            1..COMMANDS if command != COMMAND_PACKAGED => {
                self.format.page_sizes |= command == COMMAND_POSTCOPY_ADVISE && len > 0;
                self.input.skip(u64::from(len), "a command's arguments")
            }
            _ => Err(Fault::new(at, format!("command {command} with {len} bytes, which no QEMU writes"))),
        }
    }

    fn start(&mut self) -> Result<(), Fault> {
        let at = self.input.offset();
        let id = self.input.be32("a section's number")?;
        let name = self.input.name("a section's name")?;
        self.input.be32("a section's instance")?;
        let version = self.input.be32("a section's version")?;
        let kind = match name.as_str() {
            "ram" if version == ram::VERSION => Kind::Ram,
            "spapr/htab" => Kind::Htab,
            _ => {
                let reason = format!(
                    "section {name} of version {version}, whose end only its own device's code knows; save the \
                     guest without it"
                );
                return Err(Fault::new(at, reason));
            }
        };
        self.sections.insert(id, Section { kind, version, ended: false });
        self.body(id, Part::First)
    }

    fn more(&mut self, part: Part) -> Result<(), Fault> {
        let at = self.input.offset();
        let id = self.input.be32("a section's number")?;
        if !self.sections.contains_key(&id) {
            return Err(Fault::new(at, format!("more of section {id}, which has not begun")));
        }
        self.body(id, part)
    }

    fn body(&mut self, id: u32, part: Part) -> Result<(), Fault> {
        self.last = Some(id);
        let Some(section) = self.sections.get_mut(&id) else { return Ok(()) };
        section.ended |= part == Part::Last;
        match section.kind {
            Kind::Ram => self.stream.ram.pass(self.input, self.format),
            Kind::Htab => self.bodies.read(self.input, section.version, part),
        }
    }

    fn device(&mut self, at: u64) -> Result<(), Fault> {
        let id = self.input.be32("a device's number")?;
        let name = self.input.name("a device's name")?;
        let instance = self.input.be32("a device's instance")?;
        self.input.be32("a device's version")?;
        self.last = Some(id);
        if self.described.is_none() {
            self.described = self.find_description()?;
        }
        let Some(described) = &mut self.described else {
            let why = if self.all_ended() {
                "the tables are whole, but"
            } else {
                "before the tables have ended, and"
            };
            let reason = format!(
                "the state of {name}: {why} how long it is stands at the end of the stream, which is cut off, has none \
                 (suppress-vmdesc=on), or cannot be looked at in a pipe"
            );
            return Err(Fault::new(at, reason));
        };
        let Some(device) = described.pop_front() else {
            return Err(Fault::new(
                at,
                format!("the state of {name}, which the description at the end does not have"),
            ));
        };
        if device.name != name || device.instance != u64::from(instance) {
            let wanted = format!("{} {}", device.name, device.instance);
            let reason =
                format!("the state of {name} {instance}, where the description at the end has {wanted}");
            return Err(Fault::new(at, reason));
        }
        self.input.skip(device.size, &format!("the state of {name}"))?;
        self.stream.devices += 1;
        self.stream.device_bytes += device.size;
        Ok(())
    }

    fn all_ended(&self) -> bool {
        self.sections.values().all(|section| section.ended)
    }

    fn find_description(&mut self) -> Result<Option<VecDeque<Device>>, Fault> {
        if let Some(tail) = self.input.tail(DESCRIPTION_REACH)? {
            return Ok(devices::described(&tail));
        }
        if self.all_ended() {
            return Ok(devices::described(self.input.keep_rest(MOST_KEPT)?));
        }
        Ok(None)
    }

    fn end(&mut self) -> Result<(), Fault> {
        if let Some((id, _)) = self.sections.iter().find(|(_, section)| !section.ended) {
            let at = self.input.offset() - 1;
            return Err(Fault::new(at, format!("the stream's end, and section {id} has not ended")));
        }
        if self.input.peek()? == Some([DESCRIPTION]) {
            self.input.skip(1, "the description")?;
            let size = self.input.be32("the description's size")?;
            self.input.skip(u64::from(size), "the description")?;
        }
        self.stream.trailing = self.input.count_rest()?;
        Ok(())
    }
}
