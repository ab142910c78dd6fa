#pragma once

#include <string>
#include <vector>

namespace actgrid {

/// The vector instruction sets of the processor this runs on, oldest first.
std::vector<std::string> cpu_features();

}  // namespace actgrid
