#include "base/log.h"

#include <atomic>
#include <cstdio>
#include <fmt/format.h>
#include <string>

#include "base/check.h"

namespace fairlead {
namespace {

std::atomic<LogLevel> level_min{LogLevel::kInfo};
thread_local LogSink* current_sink = nullptr;

constexpr std::string_view level_name(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "DEBUG";
    case LogLevel::kInfo:
      return "INFO";
    case LogLevel::kWarn:
      return "WARN";
    case LogLevel::kError:
      return "ERROR";
  }
  return "?";
}

void append_value(std::string& line, std::string_view value) {
  const bool plain = !value.empty() && value.find_first_of(" \"\\=\n\r\t") == std::string_view::npos;
  if (plain) {
    line += value;
    return;
  }
  line += '"';
  for (const char c : value) {
    if (c == '"' || c == '\\') line += '\\';
    // Values may come off the wire: a control character must not forge a line.
    if (static_cast<unsigned char>(c) < 0x20) {
      line += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      line += c;
    }
  }
  line += '"';
}

}  // namespace

LogSink::LogSink() : outer_(current_sink) { current_sink = this; }

LogSink::~LogSink() {
  FL_CHECK(current_sink == this);
  current_sink = outer_;
}

void set_log_level(LogLevel level) noexcept { level_min.store(level, std::memory_order_relaxed); }

void log(LogLevel level, std::string_view event, LogFields fields) {
  if (level < level_min.load(std::memory_order_relaxed)) return;
  std::string line = fmt::format("{} {}", level_name(level), event);
  for (const LogField& field : fields) {
    line += ' ';
    line += field.key;
    line += '=';
    append_value(line, field.value);
  }
  if (current_sink != nullptr) {
    current_sink->write(level, event, line);
    return;
  }
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace fairlead
