"""A self-checking testbench in plain Verilog, with the scenarios of `pvq_hw.engine.scenarios`."""

from collections.abc import Iterable, Sequence
from string import Template
from textwrap import wrap

from pvq_hw.engine.scenarios import Pace, Scenario
from pvq_hw.engine.spram_image import CODES_FILE, HEADER_BYTES, CodeLayout

__all__ = ["testbench"]

_TESTBENCH = Template("""\
// Self-checking testbench of $core: plain Verilog, no other tool or library needed.
//
//   $command
//
// Sends the frames of $inputs, round and round, and compares every result with
// $results, in the scenarios at the end of this file: at full rate, where the cycles must
// be those of the plan, with pauses of all kinds at both ends, with the output blocked for longer
// than it takes to fill everything inside, and with resets at every phase of a frame. It also
// checks the protocol of the output stream: once offered, a result stays until it is taken, no
// bit of it is unknown, and it does not wait for ready; those that waited leave one a cycle.
// Stops at the first scenario that fails. Prints PASS or FAIL with counts.
//
// Other pauses: vvp tb +seed=7. One scenario alone: vvp tb +only=3

`timescale 1ns / 1ps

module tb;
  localparam COLUMNS  = $columns; // transfers of a round at the input
  localparam ROWS     = $rows; // and at the output
  localparam STIMULI  = $stimuli; // lines of $inputs
  localparam EXPECTED = $expected; // lines of $results
  localparam WORK     = $work; // cycles from a round's first input to its last result, and some
  localparam I = 0, O = 1; // the ends

  reg clk = 0;
  reg rst = 1;
  always #5 clk = ~clk;

  reg [$input_top:0] stimulus [0:STIMULI-1];
  reg [$output_top:0] expected [0:EXPECTED-1];

  reg i_valid = 0;
  wire i_ready;
  reg [$input_top:0] i_payload = 0;
  wire o_valid;
  reg o_ready = 0;
  wire [$output_top:0] o_payload;
$load_wires
  $core dut (
    .clk(clk), .rst(rst),$load_ports
    .i__valid(i_valid), .i__ready(i_ready), .i__payload(i_payload),
    .o__valid(o_valid), .o__ready(o_ready), .o__payload(o_payload)
  );

  // -- when the ends pause --------------------------------------------------------------------

  integer script [0:255]; // 128 for each end: draws to run, to pause, to run and so on
  integer steps [0:1], step [0:1], left [0:1];
  reg [31:0] state [0:1]; // then at random: two states, Marsaglia's xorshift generator
  integer to_pause [0:1], to_run [0:1]; // probabilities in 1/65536
  reg [1:0] pausing;

  function draw(input end_);
    reg [31:0] s;
    begin
      while (left[end_] == 0 && step[end_] + 1 < steps[end_]) begin
        step[end_] = step[end_] + 1;
        left[end_] = script[128 * end_ + step[end_]];
      end
      if (left[end_] != 0) begin
        left[end_] = left[end_] - 1;
        draw = step[end_] % 2;
      end else begin
        s = state[end_];
        s = s ^ (s << 13);
        s = s ^ (s >> 17);
        s = s ^ (s << 5);
        state[end_] = s;
        if (pausing[end_]) pausing[end_] = s[31:16] >= to_run[end_];
        else pausing[end_] = s[31:16] < to_pause[end_];
        draw = pausing[end_];
      end
    end
  endfunction

  // -- the streams ----------------------------------------------------------------------------

  integer resets [0:255];
  integer count = 0, due = 0; // resets of the scenario, and the next one
  integer rounds = 0;
  integer sent = 0, got = 0;
  integer cycle = 0, first = 0, done = 0; // first input and last result
  integer quiet = 0, blocked = 0, owed = 0;
  integer compared = 0, mismatches = 0, violations = 0, timeouts = 0, slow = 0;
  reg running = 0, failed = 0, valid = 0, waiting = 0;
  reg [$output_top:0] held = 0;
  integer ends [0:255]; // cycles from the first input to the last result of each round
  integer timed = 0, ready_made = 0; // first results that leave one a cycle

  task offer;
    begin
      if (!valid && sent < rounds * COLUMNS)
        if (!draw(I)) valid = 1;
      i_valid <= valid;
      if (valid) i_payload <= stimulus[sent % STIMULI];
      else i_payload <= {$words{$$random}};
    end
  endtask

  task violation(input [8*60-1:0] what);
    begin
      violations = violations + 1;
      failed = 1;
      $$display("  cycle %0d, result %0d: %0s", cycle, got, what);
    end
  endtask

  task result;
    begin
      if (got >= rounds * ROWS) violation("there is a result too many");
      else if (o_payload !== expected[got % EXPECTED]) begin
        mismatches = mismatches + 1;
        failed = 1;
        $$display("  cycle %0d, frame %0d row %0d: got %h, expected %h",
                 cycle, got / $frame_rows, got % $frame_rows, o_payload, expected[got % EXPECTED]);
      end
      got = got + 1;
      done = cycle;
      if (got % ROWS == 0 && got / ROWS <= timed && cycle - first != ends[got / ROWS - 1]) begin
        slow = slow + 1;
        failed = 1;
        $$display("  round %0d took %0d cycles, but the plan says %0d",
                 got / ROWS - 1, cycle - first, ends[got / ROWS - 1]);
      end
    end
  endtask

  always @(posedge clk) if (running) begin
    if (rst) begin // whatever was on the streams is forgotten
      sent = 0; got = 0; valid = 0; waiting = 0; quiet = 0; blocked = 0;
      offer;
    end else begin
      if (i_ready !== 0 && i_ready !== 1) violation("the input's ready is unknown");
      if (o_valid !== 0 && o_valid !== 1) violation("the output's valid is unknown");
      if (waiting && (o_valid !== 1 || o_payload !== held))
        violation("it was withdrawn or changed while it waited");
      waiting = o_valid === 1 && !o_ready;
      held = o_payload;
      if (o_ready) begin
        blocked = 0;
        if (got < ready_made && o_valid !== 1) violation("none waits, though there must be");
      end else begin
        if (blocked == 0) owed = sent / COLUMNS * ROWS;
        blocked = blocked + 1;
        if (blocked == WORK && got < owed && o_valid !== 1) violation("its valid waits for ready");
      end
      quiet = (i_valid && i_ready) || (o_valid && o_ready) ? 0 : quiet + 1;
      if (o_valid === 1 && o_ready) result;
      if (valid && i_ready === 1) begin
        if (sent == 0) first = cycle;
        sent = sent + 1;
        valid = 0;
      end
      offer;
      o_ready <= !draw(O);
    end
    cycle = cycle + 1;
    rst <= due < count && resets[due] == cycle;
    if (due < count && resets[due] == cycle) due = due + 1;
  end

  // -- scenarios ------------------------------------------------------------------------------

  integer number = 0, only = -1, more = 0;

  task start(input integer n);
    begin
      rounds = n;
      steps[I] = 0; steps[O] = 0; count = 0; timed = 0; ready_made = 0;
      random(I, 0, 65536, 1); random(O, 0, 65536, 1);
    end
  endtask

  task random(input end_, input integer pause, input integer run_, input integer seed);
    begin
      to_pause[end_] = pause;
      to_run[end_] = run_;
      state[end_] = (seed + more) * 32'd2654435761 + 32'h9E3779B9;
      if (state[end_] == 0) state[end_] = 1;
    end
  endtask

  task pause(input end_, input integer run_, input integer wait_);
    begin
      script[128 * end_ + steps[end_]] = run_;
      script[128 * end_ + steps[end_] + 1] = wait_;
      steps[end_] = steps[end_] + 2;
    end
  endtask

  task at(input integer when);
    begin
      resets[count] = when;
      count = count + 1;
    end
  endtask

  task ends_at(input integer cycles);
    begin
      ends[timed] = cycles;
      timed = timed + 1;
    end
  endtask

  task run(input [8*40-1:0] name, input integer patience);
    begin
      number = number + 1;
      if (!failed && (only < 0 || only == number)) begin
        rst = 1;
        repeat (4) @(negedge clk); // between the clock edges nothing can race
        sent = 0; got = 0; cycle = 0; quiet = 0; due = 0; blocked = 0;
        valid = 0; waiting = 0; pausing = 0;
        step[I] = 0; left[I] = steps[I] ? script[0] : 0;
        step[O] = 0; left[O] = steps[O] ? script[128] : 0;
        offer;
        o_ready <= !draw(O);
        rst = 0;
        running = 1;
        while (!failed && (got < rounds * ROWS || due < count) && quiet < patience) @(negedge clk);
        if (!failed && got < rounds * ROWS) begin
          timeouts = timeouts + 1;
          failed = 1;
          $$display("  no transfer for %0d cycles, %0d of %0d results", quiet, got, rounds * ROWS);
        end
        compared = compared + got;
        if (!failed) repeat (50) @(negedge clk); // a result too many would show up here
        $$display("%0d %0s: %0d results, %0d cycles%0s", number, name, got, done + 1,
                 failed ? ", FAILED" : "");
        running = 0;
      end
    end
  endtask
$load_task
  initial begin
    $$readmemh("$inputs", stimulus);
    $$readmemh("$results", expected);
    if ($$value$$plusargs("seed=%d", more)) $$display("seed %0d more", more);
    if ($$value$$plusargs("only=%d", only)) $$display("scenario %0d alone", only);
$loads$scenarios
    if (compared == 0) begin
      failed = 1;
      $$display("  nothing was compared: scenarios are numbered 1 to %0d", number);
    end
    if (!failed) $$display("PASS: %0d results compared, 0 mismatches", compared);
    else begin
      $$write("FAIL: %0d results compared, %0d mismatches, ", compared, mismatches);
      $$write("%0d protocol violations, %0d time-outs, ", violations, timeouts);
      $$display("%0d wrong cycle counts", slow);
    end
    $$finish;
  end
endmodule
""")

_LOAD_WIRES = """\
  reg load = 0;
  reg [15:0] load_addr = 0, load_data = 0;
"""
_LOAD_PORTS = """
    .codes__load(load), .codes__w_en(load), .codes__addr(load_addr), .codes__w_data(load_data),
    .codes__r_data(),"""
_LOAD_TASK = """
  integer file, low, high, word;

  task load_block(input integer block, input integer words);
    for (word = 0; word < words; word = word + 1) begin
      low = $fgetc(file);
      high = $fgetc(file);
      load <= 1;
      load_addr <= block * 16384 + word;
      load_data <= high * 256 + low;
      @(posedge clk);
    end
  endtask
"""


def testbench(
    core: str,
    pace: Pace,
    scenarios: Sequence[Scenario],
    *,
    stimuli: int,
    expected: int,
    bits: tuple[int, int],
    frame_rows: int,
    files: tuple[str, str],
    command: str,
    layout: CodeLayout | None,
) -> str:
    """Testbench of module ``core``.

    Parameters
    ----------
    core : str
    pace : Pace
    scenarios : sequence of Scenario
    stimuli, expected : int
        Payloads in the files: whole frames.
    bits : (int, int)
        Widths of the payloads at the input and at the output.
    frame_rows : int
        Results of a frame, for messages.
    files : (str, str)
        Names of the files of inputs and of results.
    command : str
        How to run it.
    layout : CodeLayout or None
        Of codes that are loaded from ``codes.bin`` first.
    """
    blocks = layout.blocks if layout is not None else ()
    return _TESTBENCH.substitute(
        core=core,
        command=command,
        inputs=files[0],
        results=files[1],
        columns=pace.columns,
        rows=pace.rows,
        stimuli=stimuli,
        expected=expected,
        work=_work(pace),
        input_top=bits[0] - 1,
        output_top=bits[1] - 1,
        words=-(-bits[0] // 32),
        frame_rows=frame_rows,
        load_wires=_LOAD_WIRES if blocks else "",
        load_ports=_LOAD_PORTS if blocks else "",
        load_task=_LOAD_TASK if blocks else "",
        loads=_loads([block.words for block in blocks]) if blocks else "",
        scenarios="\n".join(_scenario(scenario, pace) for scenario in scenarios),
    )


def _work(pace: Pace) -> int:
    return pace.startup + 2 * (pace.latency + pace.interval) + 300


def _loads(words: Sequence[int]) -> str:
    lines = [f'file = $fopen("{CODES_FILE}", "rb");']
    lines += [f"repeat ({HEADER_BYTES}) low = $fgetc(file);"]
    lines += [f"load_block({block}, {count});" for block, count in enumerate(words)]
    lines += ["load <= 0;", "$fclose(file);"]
    return "".join(f"    {line}\n" for line in lines)


def _scenario(scenario: Scenario, pace: Pace) -> str:
    """The statements that set a scenario up and run it."""
    found = [f"start({scenario.rounds});"]
    pauses = (scenario.idle, scenario.stall)
    for end, pattern, seed in zip("IO", pauses, (scenario.seed, scenario.seed + 1), strict=True):
        if pattern.pause:
            found.append(f"random({end}, {', '.join(map(str, pattern.thresholds))}, {seed});")
        steps = (*pattern.steps, 0) if len(pattern.steps) % 2 else pattern.steps
        for run, wait in zip(steps[::2], steps[1::2], strict=True):
            found.append(f"pause({end}, {run}, {wait});")
    found += [f"at({cycle});" for cycle in scenario.resets]
    found += [f"ends_at({cycles});" for cycles in scenario.ends]
    if scenario.waiting:
        ready_made = min(scenario.waiting, scenario.rounds * pace.rows)
        found.append(f"ready_made = {ready_made};")
    slowest = min(pattern.resume for pattern in pauses)
    longest = max(pattern.longest for pattern in pauses)
    patience = int(2 * _work(pace) / slowest) + longest + 1000
    found.append(f'run("{scenario.name}", {patience});')
    return "\n".join(_wrapped(found))


def _wrapped(statements: Iterable[str]) -> list[str]:
    """The statements, as many in a line as fit."""
    text = " ".join(statement.replace(" ", "\0") for statement in statements)
    lines = wrap(text, 100, initial_indent="    ", subsequent_indent="    ")
    return [line.replace("\0", " ") for line in lines]
