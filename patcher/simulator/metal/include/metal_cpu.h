// The Metal standard library for a C++ compiler: what a translated shader includes.
#pragma once
#pragma clang system_header

#include "metal_base.h"
#include "metal_vector.h"
#include "metal_limits.h"
#include "metal_integer.h"
#include "metal_math.h"
#include "metal_relational.h"
#include "metal_execution.h"
#include "metal_simd.h"
#include "metal_atomic.h"
#include "metal_simdgroup_matrix.h"
#include "metal_entry.h"
