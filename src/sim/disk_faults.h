// Which part of a disk may suffer which fault, and how often: so that every run is one that must survive.
#pragma once

#include <cstdint>
#include <vector>

namespace fairlead::sim {

// Times in a million, per operation that touches the zone.
struct DiskRates {
  uint32_t read_error_ppm = 0;            // kIo, and again until the sector is rewritten
  uint32_t transient_read_error_ppm = 0;  // kIo once
  uint32_t write_error_ppm = 0;           // kIo; any subset of its sectors is written
  uint32_t flush_error_ppm = 0;           // kIo; what was cached stays cached. Of the disk, not of a zone
  uint32_t rot_ppm = 0;                   // a bit of stable storage flips and is read so from then on
  uint32_t misdirected_read_ppm = 0;      // a read gives the bytes of another place of the zone
  uint32_t misdirected_write_ppm = 0;     // a write lands on another place of the zone
  uint32_t lost_write_ppm = 0;            // a write is acknowledged and does not happen
  uint32_t slow_ppm = 0;                  // takes up to DiskSettings::slow_max
};

// [begin, end), bytes, multiples of the logical block.
struct DiskZone {
  uint64_t begin = 0;
  uint64_t end = 0;
  DiskRates rates;
};

// A fault hits sectors of one zone only, and misdirection stays inside it.
struct DiskFaults {
  DiskRates elsewhere;          // where no zone is
  std::vector<DiskZone> zones;  // must not overlap

  // The zone that holds `offset`; where none does, the gap between zones around it, cut to [0, size).
  DiskZone zone_at(uint64_t offset, uint64_t size) const {
    DiskZone gap{0, size, elsewhere};
    for (const DiskZone& zone : zones) {
      if (offset >= zone.begin && offset < zone.end) return zone;
      if (zone.end <= offset && zone.end > gap.begin) gap.begin = zone.end;
      if (zone.begin > offset && zone.begin < gap.end) gap.end = zone.begin;
    }
    return gap;
  }
};

}  // namespace fairlead::sim
