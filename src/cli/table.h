// Tables for people: columns as wide as what they hold, cut where they would pass the width of the table.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fairlead::cli {

enum class Colour : uint8_t { kNone, kGood, kWarning, kBad, kFaint };

// In colours that a terminal knows; kNone: as it is.
std::string painted(std::string_view text, Colour colour);

// What a terminal would obey becomes '?': names and messages are others' words.
std::string printable(std::string_view text);

struct Cell {
  std::string text;
  Colour colour = Colour::kNone;
};
using Row = std::vector<Cell>;

struct TableStyle {
  bool has_colours = false;
  size_t width_max = 0;  // columns of a line; 0: no limit
  bool has_head = true;
};

// The first row is the head. When a line would be too long its widest columns are cut, with "…". An empty cell is "-".
std::string to_table(const std::vector<Row>& rows, const TableStyle& style);

}  // namespace fairlead::cli
