// SPDX-License-Identifier: Apache-2.0
//! @file Errors of the emulator: what they say, and expect_error().
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "support/simt/runtime.hpp"

namespace simt {

namespace detail {

namespace {

int error_pipe = -1;  //!< in a child of expect_error()

void write_all(int fd, char const* p, std::size_t n) {
  while (n > 0) {
    ssize_t const written = ::write(fd, p, n);
    if (written <= 0) {
      return;
    }
    p += written;
    n -= static_cast<std::size_t>(written);
  }
}

[[noreturn]] void end_with(char const* text, std::size_t size) {
  write_all(error_pipe >= 0 ? error_pipe : 2, text, size);
  _Exit(66);
}

}  // namespace

void fail(site at, message const& what) {
  message m;
  if (error_pipe < 0) {
    m << "SIMT ERROR: ";
  }
  m << what.text();
  if (at.file != nullptr) {
    m << ", at " << at;
  }
  m << ", block (" << blockIdx.x << "," << blockIdx.y << "," << blockIdx.z << ")";
  if (now.running != nullptr && now.running != &now.main) {
    fibre const& f = *now.running;
    m << " thread " << f.index << " (warp " << f.warp << " lane " << f.lane << ")";
  }
  m << ", seed " << std::uint64_t{now.how.seed} << "\n";
  end_with(m.text(), m.size());
}

//! One entry for each run of lanes that wait at the same place.
void deadlock() {
  message m;
  m << "deadlock:";
  auto const alike = [](fibre const& a, fibre const& b) {
    return a.state == b.state && (a.state == state::exited || same(a.at, b.at)) &&
           (a.state != state::phase || (a.barrier == b.barrier && a.parity == b.parity));
  };
  for (std::size_t i = 0, end = 0; i < now.lanes.size(); i = end) {
    fibre const& f = *now.lanes[i];
    for (end = i + 1; end < now.lanes.size() && alike(f, *now.lanes[end]);) {
      ++end;
    }
    m << (i == 0 ? " threads " : "; threads ") << std::uint64_t{i} << "-" << std::uint64_t{end - 1};
    switch (f.state) {
      case state::runnable: m << " can run"; break;
      case state::warp_operation: m << " wait in " << f.op->name << " at " << f.at; break;
      case state::block_barrier: m << " wait in __syncthreads at " << f.at; break;
      case state::phase:
        (m << " wait for barrier ").hex(f.barrier) << " parity " << f.parity << " at " << f.at;
        break;
      case state::exited: m << " have exited"; break;
    }
  }
  describe_barriers(m);
  now.running = nullptr;
  fail({nullptr, 0}, m);
}

}  // namespace detail

using namespace detail;

void fail_at(site at, char const* what) { fail(at, message() << what); }

namespace {

void died() {
  static char const text[] = "sanitizer report\n";
  write_all(error_pipe, text, sizeof(text) - 1);
}

}  // namespace

void first_error(void (*body)(void*), void* context, char* text, std::size_t capacity) {
  auto const say = [&](char const* what) { std::strncpy(text, what, capacity - 1); };
  int ends[2];
  if (::pipe(ends) != 0) {
    return say("no pipe");
  }
  // After a fork TSan sees nothing more if it knew of several contexts (libtsan of g++ 12.2): races are found by the
  // first expect_error() of a process that has launched nothing itself.
  pid_t const child = ::fork();
  if (child < 0) {
    return say("no child");
  }
  if (child == 0) {
    ::close(ends[0]);
    error_pipe = ends[1];
    if (std::getenv("KVCRUMB_SIMT_VERBOSE") == nullptr) {
      ::dup2(::open("/dev/null", O_WRONLY), 2);
    }
    if (__sanitizer_set_death_callback != nullptr) {
      __sanitizer_set_death_callback(died);
    }
    body(context);
    _Exit(0);
  }
  ::close(ends[1]);
  std::size_t size = 0;
  for (ssize_t n = 0; (n = ::read(ends[0], text + size, capacity - 1 - size)) > 0;) {
    size += static_cast<std::size_t>(n);
  }
  ::close(ends[0]);
  text[size] = '\0';
  int status = 0;
  ::waitpid(child, &status, 0);
  if (char* const end = std::strchr(text, '\n'); end != nullptr) {
    *end = '\0';
  } else if (WIFSIGNALED(status)) {
    say((message() << "signal " << WTERMSIG(status)).text());
  } else if (WEXITSTATUS(status) != 0) {
    say((message() << "exit status " << WEXITSTATUS(status)).text());
  }
}

}  // namespace simt

//! TSan calls this for each report; in a child of expect_error() the first one is the result.
extern "C" void __tsan_on_report(void*);
extern "C" void __tsan_on_report(void*) {
  if (simt::detail::error_pipe >= 0) {
    static char const text[] = "data race\n";
    simt::detail::end_with(text, sizeof(text) - 1);
  }
}
