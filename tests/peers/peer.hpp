// What the compiled peers share: options, the protocol on stdin and stdout (see cyclone_peer.py), clock, percentiles.
#pragma once

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <string>
#include <vector>

namespace peer {

struct Options {
  int domain = 0;
  std::string publish, subscribe;
  bool reliable = true;
  size_t bytes = 5760000;
  int count = 10;
  double rate = 10.0;
};

// `--name value` pairs, as the test passes them; the type subscribed to is always Detection3DArray, and reliable.
inline Options parse(int argc, char** argv) {
  std::map<std::string, std::string> given;
  for (int at = 1; at + 1 < argc; at += 2) given[argv[at]] = argv[at + 1];
  Options options;
  options.domain = std::stoi(given.at("--domain"));
  options.publish = given.at("--publish");
  options.subscribe = given.at("--subscribe");
  options.reliable = given["--reliability"] != "best_effort";
  if (given.count("--bytes")) options.bytes = std::stoul(given["--bytes"]);
  if (given.count("--count")) options.count = std::stoi(given["--count"]);
  if (given.count("--rate")) options.rate = std::stod(given["--rate"]);
  return options;
}

inline int64_t now_nanos() {
  using namespace std::chrono;
  return duration_cast<nanoseconds>(system_clock::now().time_since_epoch()).count();
}

// Bytes that both ends can compute: (31 i + number) mod 256.
inline void fill(uint8_t* data, size_t size, int number) {
  for (size_t at = 0; at < size; ++at) data[at] = static_cast<uint8_t>(31 * at + number);
}

inline bool stdin_ended() {
  pollfd input{0, POLLIN, 0};
  char byte;
  return poll(&input, 1, 0) > 0 && read(0, &byte, 1) <= 0;
}

inline void wait_for_go() {
  char byte = 0;
  while (read(0, &byte, 1) == 1 && byte != '\n') {
  }
}

inline void say(const std::string& line) { std::cout << line << std::endl; }

inline std::string summary(int sent, std::vector<double> latencies_ms) {
  std::sort(latencies_ms.begin(), latencies_ms.end());
  auto pick = [&](double share) {
    return latencies_ms.empty() ? 0.0 : latencies_ms[static_cast<size_t>(share * (latencies_ms.size() - 1))];
  };
  char line[256];
  std::snprintf(line, sizeof line,
                R"({"event":"summary","sent":%d,"received":%zu,"latency_ms":{"p50":%.1f,"p95":%.1f,"max":%.1f}})", sent,
                latencies_ms.size(), pick(0.5), pick(0.95), pick(1.0));
  return line;
}

// Calls `send(number)` at the rate and `take()` in between, until everything is sent and stdin has ended.
template <typename Send, typename Take>
void run(const Options& options, Send send, Take take) {
  say(R"({"event":"matched","endpoints":[]})");
  wait_for_go();
  auto due = std::chrono::steady_clock::now();
  const auto period = std::chrono::duration_cast<std::chrono::steady_clock::duration>(std::chrono::duration<double>(1 / options.rate));
  for (int number = 0; number < options.count || !stdin_ended();) {
    if (number < options.count && std::chrono::steady_clock::now() >= due) {
      send(number++);
      due += period;
    }
    take();
    usleep(1000);
  }
  take();
}

}  // namespace peer
