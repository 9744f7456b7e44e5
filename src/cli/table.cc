#include "cli/table.h"

#include <algorithm>

namespace fairlead::cli {
namespace {

constexpr size_t kGap = 2;
constexpr size_t kWidthMin = 6;

// Columns on a terminal, as far as what we print goes: one a character.
size_t width_of(std::string_view text) {
  return static_cast<size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<uint8_t>(c) & 0xc0U) != 0x80U; }));
}

std::string cut(std::string_view text, size_t width) {
  if (width_of(text) <= width) return std::string(text);
  size_t end = 0;
  for (size_t columns = 0; end < text.size(); ++end) {
    if ((static_cast<uint8_t>(text[end]) & 0xc0U) != 0x80U && columns++ == width - 1) break;
  }
  return std::string(text.substr(0, end)) + "…";
}

std::vector<size_t> widths_of(const std::vector<Row>& rows, size_t width_max) {
  std::vector<size_t> widths;
  for (const Row& row : rows) {
    widths.resize(std::max(widths.size(), row.size()), 1);
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i].text));
  }
  if (width_max == 0) return widths;
  size_t total = widths.empty() ? 0 : kGap * (widths.size() - 1);
  for (const size_t width : widths) total += width;
  for (; total > width_max; --total) {
    const auto widest = std::ranges::max_element(widths);
    if (*widest <= kWidthMin) break;
    --*widest;
  }
  return widths;
}

}  // namespace

std::string painted(std::string_view text, Colour colour) {
  constexpr std::string_view kCodes[] = {"", "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[2m"};
  if (colour == Colour::kNone) return std::string(text);
  return std::string(kCodes[static_cast<size_t>(colour)]) + std::string(text) + "\x1b[0m";
}

std::string printable(std::string_view text) {
  std::string clean(text);
  std::ranges::replace_if(clean, [](char c) { return (c >= 0 && c < ' ') || c == '\x7f'; }, '?');
  return clean;
}

std::string to_table(const std::vector<Row>& rows, const TableStyle& style) {
  std::vector<Row> clean = rows;
  for (Row& row : clean) {
    for (Cell& cell : row) cell.text = cell.text.empty() ? "-" : printable(cell.text);
  }
  const std::vector<size_t> widths = widths_of(clean, style.width_max);
  std::string text;
  for (size_t line = style.has_head ? 0 : 1; line < clean.size(); ++line) {
    const Row& row = clean[line];
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string shown = cut(row[i].text, widths[i]);
      text += style.has_colours ? painted(shown, row[i].colour) : shown;
      if (i + 1 < row.size()) text += std::string(widths[i] - width_of(shown) + kGap, ' ');
    }
    text += "\n";
  }
  return text;
}

}  // namespace fairlead::cli
