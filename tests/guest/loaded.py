# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU forgets of a guest's processors when it loads them under TCG, and how the tests make up for it.

- The decrementer (7.2): it is not in the stream, and its timer is not started. Until the guest happens to set it there
  are no timer interrupts: nothing sleeps to its end, RCU frees nothing, and a guest that forks runs out of memory
  some 20 s later. Later versions have "target/ppc: Migrate DECR SPR".
- That a processor was started (10.0): all but the first wait for an RTAS call that came long ago, and take no
  interrupts ("quiesced"); the guest's watchdog tells of hard lockups. Later versions have "target/ppc: Fix
  env->quiesced migration".
- The interrupt that XICS has presented and the processor has not taken yet (7.2, 10.0, 10.2): the line is not raised
  again, and XICS presents nothing of that priority to the processor any more, since it waits for an answer.

None of it has to do with the table, and it happens between two unpatched QEMUs too (case what_qemu_forgets). But a
guest that stands still shows nothing about its table either. So gdb does what is missing in every loaded guest before
it goes on, whichever QEMU it is in; a guest that stands still all the same is a failure.
"""

import re
from dataclasses import dataclass

import hpt

# A decrementer that ends at once: an interrupt too many, which the guest's handler looks through.
START_TIMER = ["call (void)cpu_ppc_store_decr(&$cpu->env, 0)"]
START_PROCESSOR = ["set var $cpu->env.quiesced = 0", "call (void)ppc_maybe_interrupt(&$cpu->env)"]
MISSING = {"7.2": START_TIMER, "10.0": START_PROCESSOR, "10.2": []}


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


def mend(series, pid, processors):
    """Does what is missing, in a guest that is held."""
    raise_line = ["if $owed", "call (void)qemu_set_irq($icp->output, 1)", "end"]
    said = hpt.gdb(pid, for_each(series, [*MISSING[series], *raise_line, 'printf "mended\\n"']))
    if said.count("mended\n") != processors:
        raise RuntimeError(f"gdb could not mend {processors} processors: {said[-800:]}")
