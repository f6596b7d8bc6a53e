# SPDX-License-Identifier: Apache-2.0
"""Counts the instructions that a warp issues for one round of the main loop of a kernel, from nvdisasm's text.

Started as a program, it tests itself.
"""
import re
import subprocess

LABEL = re.compile(r"^(\.L_x_\d+|\.L_\d+):")
INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)\s*(.*?);?\s*(/\*.*)?$")
TARGET = re.compile(r"`\((\.L_x_\d+|\.L_\d+)\)")
WANTED = 10 ** 6  # worth of an instruction that the path must not miss


class block:
    def __init__(self):
        self.instructions = []  # opcodes
        self.targets = []  # labels
        self.falls_through = True


def disassemble(disassembler, cubin, function):
    """The lines of one function."""
    text = subprocess.run([disassembler, "-c", cubin], capture_output=True, text=True, check=True).stdout
    lines, inside = [], False
    for line in text.splitlines():
        if line.startswith(".text."):
            inside = line.rstrip(":") == ".text." + function
        elif inside:
            lines.append(line)
    if not lines:
        raise ValueError(f"nvdisasm shows no function {function}")
    return lines


def control_flow(lines):
    """(blocks in order, successors of each as indices)."""
    blocks, labels, current = [block()], {}, None
    fresh = True

    def begin():
        if blocks[-1].instructions:
            blocks.append(block())

    for line in lines:
        label = LABEL.match(line)
        if label:
            begin()
            labels[label[1]] = len(blocks) - 1
            continue
        match = INSTRUCTION.match(line)
        if not match:
            continue
        predicate, opcode, rest = match[1], match[2], match[3]
        blocks[-1].instructions.append(opcode)
        kind = opcode.split(".")[0]
        if kind in ("BRA", "JMP", "BRX"):
            target = TARGET.search(rest)
            if target:
                blocks[-1].targets.append(target[1])
            # BRA.DIV and BRA.CONV leave only where lanes have diverged; a predicate may also be an operand.
            always = predicate is None and not re.match(r"!?U?P\d", rest) and ".DIV" not in opcode and ".CONV" not in opcode
            blocks[-1].falls_through = not always
            begin()
        elif kind in ("EXIT", "RET", "KILL"):
            blocks[-1].falls_through = predicate is not None
            begin()
    successors = []
    for i, b in enumerate(blocks):
        to = [labels[t] for t in b.targets if t in labels]
        if b.falls_through and i + 1 < len(blocks):
            to.append(i + 1)
        successors.append(to)
    return blocks, successors


def reachable(successors, start):
    seen, todo = {start}, [start]
    while todo:
        for s in successors[todo.pop()]:
            if s not in seen:
                seen.add(s)
                todo.append(s)
    return seen


def dominators(successors):
    """dom[b] is the set of blocks on every path from block 0 to b."""
    live = reachable(successors, 0)
    predecessors = {b: [] for b in live}
    for b in live:
        for s in successors[b]:
            predecessors[s].append(b)
    dom = {b: set(live) for b in live}
    dom[0] = {0}
    changed = True
    while changed:
        changed = False
        for b in sorted(live - {0}):
            new = set.intersection(*(dom[p] for p in predecessors[b])) | {b}
            if new != dom[b]:
                dom[b], changed = new, True
    return dom, predecessors


def natural_loops(successors):
    """{head: (set of blocks, back edges)}."""
    dom, predecessors = dominators(successors)
    loops = {}
    for b in dom:
        for head in successors[b]:
            if head in dom[b]:
                body, todo = {head}, [b]
                while todo:
                    x = todo.pop()
                    if x not in body:
                        body.add(x)
                        todo.extend(predecessors[x])
                old, edges = loops.get(head, (set(), []))
                loops[head] = (old | body, edges + [b])
    return loops


def weight(b, wanted):
    return len(b.instructions) - WANTED * sum(opcode.startswith(wanted) for opcode in b.instructions)


def shortest_round(blocks, successors, head, body, latches, wanted):
    """Blocks of the cheapest way from the head of a loop to one of its back edges that misses no wanted instruction
    which some way has. Inner loops are passed once."""
    order, state = [], {}

    def visit(start):  # depth first without recursion; edges to open blocks are back edges of inner loops
        stack = [(start, iter(successors[start]))]
        state[start] = "open"
        while stack:
            node, rest = stack[-1]
            for s in rest:
                if s in body and s != head and s not in state:
                    state[s] = "open"
                    stack.append((s, iter(successors[s])))
                    break
            else:
                state[node] = "done"
                order.append(node)
                stack.pop()

    visit(head)
    order.reverse()
    rank = {b: i for i, b in enumerate(order)}
    best = {head: (weight(blocks[head], wanted), None)}
    for b in order:
        if b not in best:
            continue
        for s in successors[b]:
            if s in rank and rank[s] > rank[b]:
                cost = best[b][0] + weight(blocks[s], wanted)
                if s not in best or cost < best[s][0]:
                    best[s] = (cost, b)
    end = min((b for b in latches if b in best), key=lambda b: best[b][0])
    way = []
    while end is not None:
        way.append(end)
        end = best[end][1]
    return way[::-1]


def main_loop(disassembler, cubin, function):
    return main_loop_of(disassemble(disassembler, cubin, function))


def main_loop_of(lines):
    """Facts about the loop over tiles, the innermost one with at least half of all tensor-core instructions: slots of one
    round on the fast path (nothing masked, no soft cap, the maximum does not rise), and what they are."""
    blocks, successors = control_flow(lines)
    count = lambda b, what: sum(opcode.startswith(what) for opcode in blocks[b].instructions)
    loops = natural_loops(successors)
    hmma = {head: sum(count(b, "HMMA") for b in body) for head, (body, edges) in loops.items()}
    if not any(hmma.values()):
        raise ValueError("no loop with HMMA")
    head = min((len(loops[h][0]), h) for h in loops if 2 * hmma[h] >= max(hmma.values()))[1]
    body, latches = loops[head]
    way = shortest_round(blocks, successors, head, body, latches, ("HMMA", "UBLKCP", "LDGSTS"))
    opcodes = {}
    for b in way:
        for opcode in blocks[b].instructions:
            name = opcode.split(".")[0]
            opcodes[name] = opcodes.get(name, 0) + 1
    return {"slots": sum(opcodes.values()), "hmma": opcodes.get("HMMA", 0), "hmma_in_loop": hmma[head],
            "opcodes": dict(sorted(opcodes.items(), key=lambda x: -x[1])),
            "loop_instructions": sum(len(blocks[b].instructions) for b in body)}


def self_test():
    """A loop over tiles in another loop that has one HMMA more; a wait, a rare path and a copy in it."""
    listing = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_9:
        /*0010*/                   HMMA.16816.F32 R0, R4, R8, R0 ;
.L_x_1:
        /*0020*/                   ISETP.GE.AND P0, PT, R0, R1, PT ;
.L_x_2:
        /*0030*/                   SYNCS.PHASECHK.TRANS64.TRYWAIT P1, [R1], R2 ;
        /*0040*/              @!P1 BRA `(.L_x_2) ;
        /*0050*/                   HMMA.16816.F32 R0, R4, R8, R0 ;
        /*0060*/                   HMMA.16816.F32 R0, R4, R8, R0 ;
        /*0070*/              @!P0 BRA `(.L_x_3) ;
        /*0080*/                   FMUL R3, R3, R3 ;
        /*0090*/                   FMUL R3, R3, R3 ;
.L_x_3:
        /*00a0*/               @P2 BRA `(.L_x_4) ;
        /*00b0*/                   UBLKCP [UR4], [UR6], UR8 ;
.L_x_4:
        /*00c0*/                   BRA.DIV UR4, `(.L_x_8) ;
        /*00d0*/               @P3 BRA `(.L_x_1) ;
        /*00e0*/               @P4 BRA `(.L_x_9) ;
        /*00f0*/                   EXIT ;
.L_x_8:
        /*0100*/                   NOP ;
        /*0110*/                   BRA `(.L_x_4) ;
.L_x_10:
        /*0120*/                   BRA `(.L_x_10);
"""
    loop = main_loop_of(listing.splitlines())
    expected = {"ISETP": 1, "SYNCS": 1, "BRA": 5, "HMMA": 2, "UBLKCP": 1}
    good = loop["opcodes"] == expected and loop["slots"] == 10 and loop["hmma_in_loop"] == 2
    print("as expected" if good else f"{loop}\nis not what is expected: {expected}")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(self_test())
