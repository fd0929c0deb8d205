// Streams frames through a compiled model and records every layer's output stream.
//
// usage: model INPUT OUTPUT THREADS FRAMES N ROWS QUIET IDLE STALL [RESET_CYCLE...]
//
// IDLE and STALL are numbers with commas between: the probabilities to pause and to run again in
// 1/65536, the seed, and then the steps of a script: draws to run, to pause, and so on.
//
// Where a model has a port for codes, `loads.bin` in the working folder holds what is written first:
// 32-bit words, the address above the 16-bit word.
//
// INPUT:  payloads of `i`, IN_WORDS 32-bit words each, FRAMES x N of them.
// OUTPUT: for each thread its cycles, the number of its frames, per frame the cycles of the first
//         input and of the last output transfer; then, link by link without `o`, the number of
//         32-bit words and these. All other numbers are 64-bit; all little-endian.
// Standard output: now and then a line with the number of frames done.
// Exit 3: a stream broke its protocol or nothing moved; the reason is on standard error.
//
// Every thread runs a model of its own, from its reset on, over a range of the frames. The agents
// behave as those of sim/agents/streams.py and draw the same pauses as pvq_hw/engine/patterns.py.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <set>
#include <thread>
#include <vector>

// Model, IN_WORDS, LOADS, and of the links, of which `o` is the last: LINKS, LINK_NAMES, LINK_WORDS,
// MAX_WORDS
#include "model.h"

namespace {

struct Pauses {
  uint32_t to_pause, to_run, state;
  bool pausing = false;
  std::vector<uint64_t> steps;
  size_t step = 0;

  explicit Pauses(char *text)
      : to_pause(number(text)),
        to_run(number(text)),
        state(static_cast<uint32_t>(number(text)) * 2654435761u + 0x9E3779B9u) {
    if (!state) state = 1;
    while (*text) steps.push_back(number(text));
  }

  static uint64_t number(char *&text) {
    uint64_t value = strtoull(text, &text, 10);
    if (*text) ++text;
    return value;
  }

  bool next() {
    while (step < steps.size() && !steps[step]) ++step;
    if (step < steps.size()) {
      --steps[step];
      return step % 2;
    }
    if (!to_pause) return false;
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    uint32_t draw = state >> 16;
    pausing = pausing ? draw >= to_run : draw < to_pause;
    return pausing;
  }
};

struct Source {
  const uint32_t *payloads;
  size_t count;
  Pauses pauses;
  size_t next = 0;
  bool valid = false;

  void offer() {
    if (next < count && !pauses.next()) valid = true;
  }
  const uint32_t *payload() const { return &payloads[(valid ? next : 0) * IN_WORDS]; }
  void clock(bool ready) {
    if (valid && ready) {
      ++next;
      valid = false;
    }
    if (!valid) offer();
  }
  void reset() {
    next = 0;
    valid = false;
    offer();
  }
};

struct Monitor {
  const char *name;
  size_t words;
  std::vector<uint32_t> payloads;
  bool held = false;
  uint32_t last[MAX_WORDS];

  bool clock(uint64_t cycle, bool valid, bool ready, const uint32_t *payload) {
    if (held && !valid) fail(cycle, "valid must hold until ready, but fell");
    if (!valid) return false;
    if (held)
      for (size_t w = 0; w < words; ++w)
        if (last[w] != payload[w]) fail(cycle, "payload must hold until ready, but changed");
    held = !ready;
    if (held) {
      for (size_t w = 0; w < words; ++w) last[w] = payload[w];
      return false;
    }
    payloads.insert(payloads.end(), payload, payload + words);
    return true;
  }
  [[noreturn]] void fail(uint64_t cycle, const char *what) const {
    fprintf(stderr, "Stream '%s', cycle %llu: %s\n", name, (unsigned long long)cycle, what);
    std::_Exit(3);
  }
  void reset() {
    payloads.clear();
    held = false;
  }
};

struct Job {
  char **argv;
  size_t threads, frames, n, rows;
  uint64_t quiet;
  std::set<uint64_t> resets;
  std::vector<uint32_t> payloads, loads;
  std::atomic<size_t> done{0};

  Job(int argc, char **arguments)
      : argv(arguments),
        threads(number(3)),
        frames(number(4)),
        n(number(5)),
        rows(number(6)),
        quiet(number(7)),
        payloads(frames * n * IN_WORDS) {
    for (int a = 10; a < argc; ++a) resets.insert(number(a));
    if (FILE *file = LOADS ? fopen("loads.bin", "rb") : nullptr) {
      for (uint32_t write; fread(&write, 4, 1, file) == 1;) loads.push_back(write);
      fclose(file);
    }
  }
  uint64_t number(int a) const { return strtoull(argv[a], nullptr, 10); }
};

class Run {
 public:
  Run(Job &job, size_t first, size_t frames)
      : job_(job),
        source_{&job.payloads[first * job.n * IN_WORDS], frames * job.n,
                Pauses(job.argv[8])},
        stall_(job.argv[9]),
        starts_(frames),
        ends_(frames) {
    for (size_t k = 0; k < LINKS; ++k) links_.push_back(Monitor{LINK_NAMES[k], LINK_WORDS[k], {}});
  }

  void operator()() {
    for (uint32_t write : job_.loads) {
      model_->load(true, write >> 16, write & 0xFFFF);
      model_->drive(true, false, source_.payload(), false);
      model_->edge();
    }
    model_->load(false, 0, 0);
    for (int i = 0; i < 2; ++i) {
      model_->drive(true, false, source_.payload(), false);
      model_->edge();
    }
    source_.offer();
    ready_ = !stall_.next();
    for (; taken_ < ends_.size() * job_.rows; ++cycle_) {
      const bool reset = !job_.resets.empty() && job_.resets.count(cycle_);
      model_->drive(reset, source_.valid, source_.payload(), ready_);
      if (reset)
        forget();
      else
        clock();
      model_->edge();
    }
    model_.reset();
  }

  void write(FILE *file) const {
    put(file, cycle_);
    put(file, starts_.size());
    fwrite(starts_.data(), 8, starts_.size(), file);
    fwrite(ends_.data(), 8, ends_.size(), file);
    for (size_t k = 0; k + 1 < LINKS; ++k) {
      put(file, links_[k].payloads.size());
      fwrite(links_[k].payloads.data(), 4, links_[k].payloads.size(), file);
    }
  }

 private:
  Job &job_;
  Source source_;
  Pauses stall_;
  std::vector<uint64_t> starts_, ends_;
  std::vector<Monitor> links_;
  std::unique_ptr<Model> model_{new Model};
  uint64_t cycle_ = 0, quiet_ = 0;
  size_t taken_ = 0;
  bool ready_ = false;

  static void put(FILE *file, uint64_t number) { fwrite(&number, sizeof number, 1, file); }

  void forget() {
    for (auto &link : links_) link.reset();
    source_.reset();
    taken_ = 0;
  }

  void clock() {
    const bool given = source_.valid && model_->i_ready();
    bool moved = given;
    if (given && source_.next % job_.n == 0) starts_[source_.next / job_.n] = cycle_;
    bool out = false;
    model_->each_link([&](size_t k, bool valid, bool ready, const uint32_t *payload) {
      moved |= out = links_[k].clock(cycle_, valid, ready, payload);
    });
    if (out) {
      links_[LINKS - 1].payloads.clear();  // the last layer's link has them
      if (++taken_ % job_.rows == 0) {
        ends_[taken_ / job_.rows - 1] = cycle_;
        tell();
      }
    }
    source_.clock(model_->i_ready());
    ready_ = !stall_.next();
    quiet_ = moved ? 0 : quiet_ + 1;
    if (quiet_ > job_.quiet) stuck();
  }

  void tell() {
    const size_t done = ++job_.done, step = job_.frames / 50 + 1;
    if (done % step) return;
    printf("%zu\n", done);
    fflush(stdout);
  }

  [[noreturn]] void stuck() const {
    fprintf(stderr, "No stream moved for %llu cycles; transfers so far: i %zu, o %zu",
            (unsigned long long)job_.quiet, source_.next, taken_);
    for (size_t k = 0; k + 1 < LINKS; ++k)
      fprintf(stderr, ", %s %zu", links_[k].name, links_[k].payloads.size() / links_[k].words);
    fprintf(stderr, "\n");
    std::_Exit(3);
  }
};

}  // namespace

int main(int argc, char **argv) {
  if (argc < 10) return 2;
  Job job(argc, argv);
  FILE *input = fopen(argv[1], "rb");
  if (!input || fread(job.payloads.data(), 4, job.payloads.size(), input) != job.payloads.size())
    return 2;
  fclose(input);

  std::vector<std::unique_ptr<Run>> runs;
  const size_t share = (job.frames + job.threads - 1) / job.threads;
  for (size_t first = 0; first < job.frames; first += share)
    runs.emplace_back(new Run(job, first, std::min(share, job.frames - first)));
  std::vector<std::thread> threads;
  for (auto &run : runs) threads.emplace_back(std::ref(*run));
  for (auto &thread : threads) thread.join();

  FILE *output = fopen(argv[2], "wb");
  if (!output) return 2;
  for (auto &run : runs) run->write(output);
  return fclose(output) ? 2 : 0;
}
