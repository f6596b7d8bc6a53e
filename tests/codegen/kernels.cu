// SPDX-License-Identifier: Apache-2.0
//! @file The kernel instances that check_kernels.py compiles, one at a time: -DKVCRUMB_DECODE=<name>,
//! -DKVCRUMB_ENCODE=<name> or -DKVCRUMB_APPEND=<name> picks one of the structs below by its name.

#if defined(KVCRUMB_ENCODE)
#include "kvcrumb/device/encode.cuh"
#elif defined(KVCRUMB_APPEND)
#include "kvcrumb/device/append.cuh"
#else
#include "kvcrumb/device/decode.cuh"
#endif
#include "kvcrumb/schemes.hpp"

namespace instances {

using namespace kvcrumb;

//! Keys per channel and values per token, or both per token.
template <int Bits, int Group>
using channels =
    kv_scheme<composed<affine<Bits>, per_channel<Group>>, composed<affine<Bits>, per_token<Group>>>;
template <class Codec, class Transform = identity>
using rows = kv_scheme<composed<Codec, per_row, Transform>, composed<Codec, per_row, Transform>>;
template <int Bits, int Group>
using rotated = kv_scheme<composed<symmetric<Bits>, per_channel<Group>, hadamard<>>,
                          composed<symmetric<Bits>, per_token<Group>, hadamard<>>>;

template <class Scheme, int HeadDim, int TileTokens, int ColumnTiles = 1>
struct decode {
  using scheme = Scheme;
  static constexpr int head_dim = HeadDim, tile_tokens = TileTokens, column_tiles = ColumnTiles;
};
template <class Scheme, int HeadDim, int TileTokens>
struct encode {
  using scheme = Scheme;
  static constexpr int head_dim = HeadDim, tile_tokens = TileTokens;
};

// The line of an instance is read by check_kernels.py: struct <name> : <kind><...>.

struct ott2 : decode<schemes::ott_type<2, 128>, 128, 128> {};
struct kivi2 : decode<schemes::kivi_type<2, 32>, 128, 128> {};
struct kivi4 : decode<schemes::kivi_type<4, 32>, 128, 128> {};
struct affine1 : decode<channels<1, 128>, 128, 128> {};
struct affine3 : decode<channels<3, 128>, 128, 128> {};
struct affine8 : decode<channels<8, 128>, 128, 128> {};
struct qserve4 : decode<schemes::qserve4_type<>, 128, 128> {};
struct nqkv4 : decode<schemes::nqkv4_type<>, 128, 128> {};
struct lloyd2 : decode<rows<lloyd_max<2>, hadamard<>>, 128, 128> {};
struct lloyd3 : decode<rows<lloyd_max<3>, hadamard<>>, 128, 128> {};
struct lloyd4 : decode<rows<lloyd_max<4>, hadamard<>>, 128, 128> {};
struct rotated4 : decode<rotated<4, 64>, 128, 128> {};
struct stored16 : decode<rows<raw<float16>>, 128, 128> {};
struct stored8 : decode<schemes::fp8_type, 128, 128> {};
struct ott2_d64 : decode<schemes::ott_type<2, 64>, 64, 128> {};
struct ott2_d96 : decode<schemes::ott_type<2, 32>, 96, 128> {};
struct ott2_d192 : decode<schemes::ott_type<2, 64>, 192, 128> {};
struct ott2_d256 : decode<schemes::ott_type<2, 128>, 256, 128> {};
struct ott2_columns2 : decode<schemes::ott_type<2, 128>, 128, 128, 2> {};
struct kivi4_columns2 : decode<schemes::kivi_type<4, 64>, 128, 128, 2> {};
struct ott2_tile64 : decode<schemes::ott_type<2, 64>, 128, 64> {};

struct encode_ott2 : encode<schemes::ott_type<2, 128>, 128, 128> {};
struct encode_kivi2 : encode<schemes::kivi_type<2, 32>, 128, 128> {};
struct encode_kivi4 : encode<schemes::kivi_type<4, 32>, 128, 128> {};
struct encode_affine4 : encode<channels<4, 128>, 128, 128> {};
struct encode_affine3 : encode<channels<3, 128>, 128, 128> {};
struct encode_qserve4 : encode<schemes::qserve4_type<>, 128, 128> {};
struct encode_nqkv4 : encode<schemes::nqkv4_type<>, 128, 128> {};
struct encode_lloyd4 : encode<rows<lloyd_max<4>, hadamard<>>, 128, 128> {};

}  // namespace instances

//! Its name in the compiler's output says what only constants of C++ know.
template <int DynamicBytes, int Threads, int Tokens, int HeadDim>
__global__ void facts() {}

#if defined(KVCRUMB_DECODE)
using chosen = instances::KVCRUMB_DECODE;
using decoder = kvcrumb::device::decoder<chosen::scheme, chosen::head_dim, chosen::tile_tokens,
                                         kvcrumb::float16, kvcrumb::float16, chosen::column_tiles>;
static_assert(decoder::supports() == kvcrumb::status::ok);
template __global__ void kvcrumb::kernel::decode_kernel<decoder::config, decoder::arguments>(
    __grid_constant__ decoder::arguments const, __grid_constant__ chosen::scheme const);
#if !defined(KVCRUMB_MAIN_KERNEL_ONLY)
template __global__ void kvcrumb::kernel::combine_kernel<decoder::config, decoder::arguments>(
    __grid_constant__ decoder::arguments const, __grid_constant__ chosen::scheme const);
template __global__ void kvcrumb::kernel::plan_kernel<decoder::config, decoder::arguments>(
    __grid_constant__ decoder::arguments const);
#endif
template __global__ void facts<static_cast<int>(kvcrumb::block::decode<decoder::config>::dynamic_bytes),
                               decoder::config::threads, chosen::tile_tokens, chosen::head_dim>();
#elif defined(KVCRUMB_ENCODE) || defined(KVCRUMB_APPEND)
#if defined(KVCRUMB_ENCODE)
using chosen = instances::KVCRUMB_ENCODE;
#else
using chosen = instances::KVCRUMB_APPEND;
#endif
using config =
    kvcrumb::block::encode_config<chosen::scheme, chosen::head_dim, chosen::tile_tokens, kvcrumb::float16>;
using arguments = kvcrumb::block::encode_arguments<kvcrumb::float16>;
#if defined(KVCRUMB_ENCODE)
template __global__ void kvcrumb::kernel::encode_kernel<config>(__grid_constant__ arguments const,
                                                                __grid_constant__ chosen::scheme const);
#else
template __global__ void kvcrumb::kernel::append_kernel<config>(__grid_constant__ arguments const,
                                                                __grid_constant__ chosen::scheme const);
#endif
template __global__ void
facts<config::shared_bytes(chosen::tile_tokens), config::threads, chosen::tile_tokens, chosen::head_dim>();
#endif
