// Logging: one line, an event name that stays, then key=value.
// ERROR = a person must act; WARN = degraded; INFO = changes of state. Nothing on the data path.
//
//   log_info("target.host_connected", {{"host", nqn}, {"queues", 4}});
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace fairlead {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarn, kError };

// A key and its value as text; values with spaces or quotes are quoted when written.
struct LogField {
  std::string_view key;
  std::string value;

  LogField(std::string_view k, std::string_view v) : key(k), value(v) {}
  LogField(std::string_view k, const char* v) : key(k), value(v) {}
  LogField(std::string_view k, const std::string& v) : key(k), value(v) {}
  LogField(std::string_view k, bool v) : key(k), value(v ? "true" : "false") {}
  LogField(std::string_view k, std::integral auto v) : key(k), value(std::to_string(v)) {}
};
using LogFields = std::initializer_list<LogField>;

void log(LogLevel level, std::string_view event, LogFields fields = {});
inline void log_debug(std::string_view event, LogFields fields = {}) { log(LogLevel::kDebug, event, fields); }
inline void log_info(std::string_view event, LogFields fields = {}) { log(LogLevel::kInfo, event, fields); }
inline void log_warn(std::string_view event, LogFields fields = {}) { log(LogLevel::kWarn, event, fields); }
inline void log_error(std::string_view event, LogFields fields = {}) { log(LogLevel::kError, event, fields); }

// Lines below this level are dropped. Thread-safe. The default is kInfo.
void set_log_level(LogLevel level) noexcept;

// Receives each line instead of standard error, while it is installed on this thread: the simulator's trace and its
// oracle against unexpected ERROR lines. Lives on one thread; nests.
class LogSink {
 public:
  LogSink();
  virtual ~LogSink();
  LogSink(const LogSink&) = delete;
  LogSink& operator=(const LogSink&) = delete;
  // `line` is valid during the call and has no newline.
  virtual void write(LogLevel level, std::string_view event, std::string_view line) = 0;

 private:
  LogSink* outer_;
};

}  // namespace fairlead
