// SPDX-License-Identifier: Apache-2.0
//! @file bench_host_decode: decode attention on the CPU against the time of reading its bytes, and against
//! ggml where a checkout is given. All variants of a problem take turns in one process; medians of the
//! accepted rounds.
#include <algorithm>
#include <ctime>
#include <numeric>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "host_decode/variant.hpp"

#if defined(KVCRUMB_BENCH_GGML)
#include "host_decode/ggml_check.hpp"
#include "host_decode/ggml_side.hpp"
#endif

namespace {

using namespace kvcrumb_bench;
using variants = std::vector<std::unique_ptr<variant>>;

#if defined(KVCRUMB_BENCH_GGML)
class ggml_variant final : public variant {
 public:
  ggml_variant(ggml_kv type, ggml_order order, decode_problem const& p, int threads)
      : name_{std::string("ggml ") + to_string(type) + ", " + to_string(order)},
        attention_{ggml_attention::create(type, order, p.query_heads, p.kv_heads, p.tokens, threads,
                                          pool_bytes, use_huge_pages)} {
    if (attention_ == nullptr) std::exit(1);
    std::vector<float> rows(static_cast<std::size_t>(p.kv_heads * p.tokens * bench_head_dim));
    std::mt19937 engine{1};
    for (float& x : rows)
      x = static_cast<float>(static_cast<int>(engine() & 2047u) - 1024) / 512.0f;
    if (!attention_->set_inputs(rows, rows,
                                {rows.data(), static_cast<std::size_t>(p.query_heads * bench_head_dim)}))
      std::exit(1);
  }
  std::string name() const override { return name_; }
  std::int64_t bytes() const override { return attention_->bytes(); }
  std::span<std::byte const> pool() const override { return attention_->pool(); }
  void step(int round, workers&) override { attention_->run(round); }
  void wake(workers&) override { attention_->wake(); }
  void rest(workers&) override { attention_->rest(); }

 private:
  std::string name_;
  std::unique_ptr<ggml_attention> attention_;
};
#endif

struct settings {
  std::vector<std::int64_t> tokens{4096, 16384, 65536};
  std::vector<int> kv_heads{32, 8}, threads{1, 2};
  std::vector<std::string> schemes;
  int rounds = 31;
  std::string instruction_set, json;
};

template <class Scheme>
void add(variants& all, settings const& s, char const* name, Scheme scheme, decode_problem const& p,
         kvcrumb::host::execution how) {
  if (!s.schemes.empty() && std::find(s.schemes.begin(), s.schemes.end(), name) == s.schemes.end()) return;
  all.push_back(std::make_unique<kv_variant<Scheme>>(name, scheme, p, how));
}

variants make_variants(settings const& s, decode_problem const& p, int threads,
                       kvcrumb::host::execution how) {
  using namespace kvcrumb;
  variants all;
  auto ott2 = schemes::ott<2>();
  ott2.isolate.capacity = 0;
  add(all, s, "ott2", ott2, p, how);
  add(all, s, "kivi2", schemes::kivi<2, 32>(), p, how);
  add(all, s, "affine1", schemes::kivi<1, 128>(), p, how);
  add(all, s, "affine3", schemes::kivi<3, 128>(), p, how);
  add(all, s, "affine4", schemes::kivi<4, 128>(), p, how);
  add(all, s, "affine8", schemes::kivi<8, 128>(), p, how);
  add(all, s, "nqkv4", schemes::nqkv4(), p, how);
  add(all, s, "qserve4", schemes::qserve4(), p, how);
#if defined(KVCRUMB_BENCH_GGML)
  for (ggml_order const order : {ggml_order::contiguous, ggml_order::token_major}) {
    for (ggml_kv const type : {ggml_kv::f16, ggml_kv::bf16, ggml_kv::q8_0, ggml_kv::q4_0}) {
      std::string const name = std::string("ggml_") + to_string(type);
      if (!s.schemes.empty() && std::find(s.schemes.begin(), s.schemes.end(), name) == s.schemes.end())
        continue;
      all.push_back(std::make_unique<ggml_variant>(type, order, p, threads));
    }
  }
#else
  (void)threads;
#endif
  return all;
}

//! Median of the accepted timings, of all where none is.
double median(std::vector<timing> const& all, int threads, int& accepted) {
  std::vector<double> times;
  for (timing const& t : all)
    if (t.accepted(threads)) times.push_back(t.wall);
  accepted = static_cast<int>(times.size());
  if (times.empty()) {
    for (timing const& t : all)
      times.push_back(t.wall);
  }
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

void measure(settings const& s, decode_problem const& p, int threads, kvcrumb::host::execution how,
             stream_floor& stream, nlohmann::json& results) {
  variants const all = make_variants(s, p, threads, how);
  workers crew{threads};
  std::vector<std::vector<timing>> times(all.size()), floors(all.size());
  std::vector<std::size_t> order(all.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::mt19937 engine{1};
  for (int round = 0; round < s.rounds; ++round) {
    std::shuffle(order.begin(), order.end(), engine);  // no variant always follows the same one
    for (std::size_t const i : order) {
      all[i]->wake(crew);
      all[i]->step(4 * round, crew);  // untimed: frequency, page tables and predictors as in a running engine
      times[i].push_back(timed([&] { all[i]->step(4 * round + 1, crew); }));
      all[i]->rest(crew);
      crew.wake();
      stream.step(*all[i], 4 * round + 2, crew);
      floors[i].push_back(timed([&] { stream.step(*all[i], 4 * round + 3, crew); }));
      crew.rest();
    }
  }
  std::printf("\n%d query heads, %d kv heads, %lld tokens, %d thread%s\n", p.query_heads, p.kv_heads,
              static_cast<long long>(p.tokens), threads, threads == 1 ? "" : "s");
  std::printf("%-26s %9s %9s %9s %10s %9s\n", "", "MB", "ms", "GB/s", "of stream", "accepted");
  for (std::size_t i = 0; i < all.size(); ++i) {
    int accepted = 0, accepted_floor = 0;
    double const t = median(times[i], threads, accepted), f = median(floors[i], threads, accepted_floor);
    double const bytes = static_cast<double>(all[i]->bytes());
    std::printf("%-26s %9.2f %9.3f %9.2f %8.1f %% %4d, %3d\n", all[i]->name().c_str(), bytes / 1e6, 1e3 * t,
                bytes / t / 1e9, 100.0 * f / t, accepted, accepted_floor);
    std::fflush(stdout);
    results.push_back({{"variant", all[i]->name()},
                       {"query_heads", p.query_heads},
                       {"kv_heads", p.kv_heads},
                       {"tokens", p.tokens},
                       {"threads", threads},
                       {"bytes", all[i]->bytes()},
                       {"seconds", t},
                       {"stream_seconds", f},
                       {"rounds", s.rounds},
                       {"accepted", accepted},
                       {"stream_accepted", accepted_floor}});
  }
}

}  // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app{"Decode attention on the CPU: median times, and the time of a streaming read of the same "
               "bytes over them.\n"
               "A round is accepted if all threads had their processors for 95 % of it."};
  app.add_option("--tokens", s.tokens, "context lengths, multiples of 128")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--kv-heads", s.kv_heads, "kv heads of 32 query heads")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--threads", s.threads, "numbers of threads")->delimiter(',')->capture_default_str();
  app.add_option("--schemes", s.schemes, "only these, for example ott2,kivi2,ggml_f16")->delimiter(',');
  app.add_option("--rounds", s.rounds)->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--instruction-set", s.instruction_set,
                 "portable, avx2, avx512_vnni, amx_int8 or neon_dotprod; default: the best");
  app.add_flag("--huge-pages", use_huge_pages, "pages of 2 MiB for everything that is read (Linux)");
  app.add_option("--json", s.json, "file for the results");
  CLI11_PARSE(app, argc, argv);

  (void)kvcrumb::host::request_amx();  // makes amx_int8 the best one where there is AMX
  kvcrumb::host::execution how;
  for (int i = 0; !s.instruction_set.empty() && i < kvcrumb::host::instruction_set_count; ++i) {
    auto const isa = static_cast<kvcrumb::host::instruction_set>(i);
    if (s.instruction_set == kvcrumb::host::to_string(isa))
      how.isa = isa, how.allow_slow = true, s.instruction_set = "";
  }
  if (!s.instruction_set.empty() || !kvcrumb::host::is_available(how.isa)) {
    std::fprintf(stderr, "host_decode: no such instruction set here\n");
    return 2;
  }
  for (std::int64_t const tokens : s.tokens) {
    if (tokens < 1 || tokens % bench_tile != 0) {
      std::fprintf(stderr, "host_decode: --tokens must be multiples of %d\n", bench_tile);
      return 2;
    }
  }
  nlohmann::json report{{"instruction_set", kvcrumb::host::to_string(how.isa)},
                        {"huge_pages", use_huge_pages},
                        {"results", nlohmann::json::array()}};
  char date[32];
  std::time_t const now = std::time(nullptr);
  std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  report["date"] = date;
  std::printf("instruction set %s\n", kvcrumb::host::to_string(how.isa));
#if defined(KVCRUMB_BENCH_GGML)
  std::printf("%s\n", ggml_description().c_str());
  report["ggml"] = ggml_description();
  if (!ggml_self_check(stderr)) return 1;
#endif
  stream_floor stream;
  for (int const threads : s.threads) {
    for (int const kv_heads : s.kv_heads) {
      if (kv_heads < 1 || 32 % kv_heads != 0 || threads < 1 || threads > 256) {
        std::fprintf(stderr, "host_decode: --kv-heads must divide 32, --threads must be 1 to 256\n");
        return 2;
      }
      for (std::int64_t const tokens : s.tokens)
        measure(s, {32, kv_heads, tokens}, threads, how, stream, report["results"]);
    }
  }
  if (!s.json.empty()) {
    std::FILE* const file = std::fopen(s.json.c_str(), "w");
    if (file == nullptr || std::fputs(report.dump(1).c_str(), file) < 0 || std::fclose(file) != 0) {
      std::fprintf(stderr, "host_decode: cannot write %s\n", s.json.c_str());
      return 1;
    }
  }
}
