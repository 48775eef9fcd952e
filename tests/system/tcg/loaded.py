# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU loses of a guest, its table aside, when it migrates it under TCG, and how the tests make up for it.

- Stores to RAM (7.2): they go on without a mark through the TLB after the marks were read and cleared, until the guest
  happens to flush it, and if it is stopped by then they are not sent. A guest that forks flushes it all the time and
  loses hardly anything; one that counts in a loop (CALM) lost 15 to 18 pages of 64 KiB each time between two unpatched
  programs. Later versions have "physmem: Fix migration dirty bitmap coherency with TCG memory access".
- That a page became all zeros, or always was (multifd, 10.0 and 10.2): the destination takes a page of zeros as there
  already, and what its own start wrote to it (the device tree near the memory's end) stays.
- The decrementer (7.2): it is not in the stream, and its timer is not started. Until the guest happens to set it there
  are no timer interrupts: nothing sleeps to its end, RCU frees nothing, and a guest that forks runs out of memory
  some 20 s later. Later versions have "target/ppc: Migrate DECR SPR".
- That a processor was started (10.0): all but the first wait for an RTAS call that came long ago, and take no
  interrupts ("quiesced"); the guest's watchdog reports hard lockups. Later versions have "target/ppc: Fix
  env->quiesced migration".
- The interrupt that XICS has presented and the processor has not taken yet (7.2, 10.0, 10.2): the line is not raised
  again, and XICS presents nothing of that priority to the processor any more, since it waits for an answer.

None of it has to do with the table, and it happens between two unpatched QEMUs too (case what_qemu_forgets). But a
guest that stands still, or goes astray, shows nothing about its table either. So what is missing is done in every
loaded guest, before it goes on and whichever QEMU it is in: RAM is compared, and copied where it was lost as above;
gdb starts timers and processors. A guest that does not go on after that is a failure, and so is RAM lost otherwise.
"""

import os
import re
from dataclasses import dataclass

import hpt

# A decrementer that ends at once: an interrupt too many, which the guest's handler looks through.
START_TIMER = ["call (void)cpu_ppc_store_decr(&$cpu->env, 0)"]
START_PROCESSOR = ["set var $cpu->env.quiesced = 0", "call (void)ppc_maybe_interrupt(&$cpu->env)"]
# What is done for each processor; RAM is lost by the source.
MISSING = {"7.2": START_TIMER, "10.0": START_PROCESSOR, "10.2": []}
LOSE_RAM = {"7.2"}
RAM_CHUNK, RAM_PAGE = 4 << 20, 1 << 16


@dataclass(frozen=True)
class Processor:
    """Of one processor, what is forgotten."""

    armed: bool  # the decrementer's timer runs
    ended: bool  # the decrementer's interrupt is pending
    stopped: bool  # waits for RTAS
    owed: bool  # an interrupt that XICS has presented is not there


def for_each(series, script):
    """A script of gdb's that does something for each $cpu, with its $icp."""
    return [
        f"set $cpu = (PowerPCCPU *){'cpus' if series == '7.2' else 'cpus_queue'}.tqh_first",
        "while $cpu",
        "set $icp = ((SpaprCpuState *)$cpu->machine_data)->icp",
        "set $owed = $icp != 0 && ($icp->xirr & 0xffffff) != 0",
        "set $owed = $owed && !($cpu->env.pending_interrupts & PPC_INTERRUPT_EXT)",
        *script,
        "set $cpu = (PowerPCCPU *)((CPUState *)$cpu)->node.tqe_next",
        "end",
    ]


def look(series, pid):
    """The processors of a guest that is held."""
    values = {
        "armed": "$cpu->env.tb_env->decr_timer->expire_time >= 0",
        "ended": "($cpu->env.pending_interrupts & PPC_INTERRUPT_DECR) != 0",
        "stopped": "0" if series == "7.2" else "$cpu->env.quiesced",
        "owed": "$owed",
    }
    line = f'printf "processor {"%d" * len(values)}\\n", {", ".join(values.values())}'
    said = hpt.gdb(pid, for_each(series, [line]))
    found = re.findall(f"^processor ([01]{{{len(values)}}})$", said, re.M)
    if not found:
        raise RuntimeError(f"gdb could not read the processors: {said[-800:]}")
    return [Processor(**{name: bit == "1" for name, bit in zip(values, each)}) for each in found]


def ram_of(pid):
    """Where a QEMU process has the guest's RAM, and how much of it there is."""
    # By a call: gdb 13 does not know RAMBlock when it reads its own index.
    at = "(unsigned long)memory_region_get_ram_ptr(current_machine->ram)"
    said = hpt.gdb(pid, [f'printf "ram %lu %lu\\n", {at}, current_machine->ram_size'])
    found = re.search(r"^ram (\d+) (\d+)$", said, re.M)
    if not found:
        raise RuntimeError(f"gdb could not find the RAM: {said[-800:]}")
    return int(found.group(1)), int(found.group(2))


def copy_lost_ram(source, destination):
    """Copies RAM between two processes whose guests are held.

    Returns how many pages of 64 KiB differed, and how many of them are all zeros in the source.
    """
    (ours, size), (theirs, _) = ram_of(source), ram_of(destination)
    lost = zeros = 0
    with open(f"/proc/{source}/mem", "rb") as here, open(f"/proc/{destination}/mem", "rb+") as there:
        from_fd, to_fd = here.fileno(), there.fileno()
        for chunk in range(0, size, RAM_CHUNK):
            if os.pread(from_fd, RAM_CHUNK, ours + chunk) == os.pread(to_fd, RAM_CHUNK, theirs + chunk):
                continue
            for at in range(chunk, chunk + RAM_CHUNK, RAM_PAGE):
                page = os.pread(from_fd, RAM_PAGE, ours + at)
                if page != os.pread(to_fd, RAM_PAGE, theirs + at):
                    os.pwrite(to_fd, page, theirs + at)
                    lost += 1
                    zeros += not any(page)
    return lost, zeros


def mend(series, pid, processors):
    """Does what is missing, in a guest that is held."""
    raise_line = ["if $owed", "call (void)qemu_set_irq($icp->output, 1)", "end"]
    said = hpt.gdb(pid, for_each(series, [*MISSING[series], *raise_line, 'printf "mended\\n"']))
    if said.count("mended\n") != processors:
        raise RuntimeError(f"gdb could not mend {processors} processors: {said[-800:]}")
