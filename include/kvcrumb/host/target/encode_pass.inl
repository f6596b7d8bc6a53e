// SPDX-License-Identifier: Apache-2.0
//! @file host::encode: statistics, parameters and codes of one side of a tile. Included once per target by
//! targets.hpp.

//! Kv heads that share groups, one or more; `rows` are in the basis of the codec, head 0 is the first of
//! them.
template <class Codec, bool Channelwise, class Row>
struct span_pass {
  static constexpr bool few = codec16<Codec>::few_levels && sizeof(Row) == 2;
  using param_type = typename Codec::param_type;
  using source =
      std::conditional_t<Channelwise, channel_codes<Codec, Row, few>, token_codes<Codec, Row, few>>;

  Codec const& codec;
  codebook_steps const& steps;
  encode_plan const& plan;
  encode_memory const& memory;
  rows_view<Row const> rows;
  std::uint8_t const* isolated;  //!< [heads][count] or null
  std::byte* const* sections;    //!< [heads]
  int heads, count, slot;
  bool distant;  //!< whether rows shall be fetched: those of the first heads

  //! `next(h)`: rows to fetch while head h is encoded.
  template <class Next>
  void run(Next const& next) const noexcept {
    next_rows coming = next(0);
    group_statistics<Codec, Row> const statistics{plan, memory, rows, isolated, count, distant};
    int const groups = Channelwise ? count / plan.group : plan.groups;
    int const owners = Channelwise ? plan.stride : count;
    if constexpr (Channelwise) {
      for (int group = 0; group < groups; ++group)
        statistics.of_channels(group, coming);
    } else {
      for (int token = 0; token < count; token += 16)
        statistics.of_tokens(heads, token, coming);
    }
    for (int group = 0; group < groups; ++group) {
      for (int owner = 0; owner < owners; owner += 16) {
        coming.step(16);
        fit(static_cast<std::int64_t>(group) * plan.stride + owner);
      }
      if (Channelwise && isolated != nullptr) fill_isolated(group, statistics.kept(group));
    }
    for (int h = 0; h < heads; ++h) {
      if (h > 0) coming = next(h);
      std::uint8_t const* const out =
          isolated == nullptr ? nullptr : isolated + static_cast<std::int64_t>(h) * count;
      for (int plane = 0; plane < plan.spec.planes; ++plane) {
        for (int group = 0; group < groups; ++group)
          store_plane(plane, group, out, sections[h]);
      }
      pack_section(plan, slot, count, sections[h], memory.wide,
                   source{codec, steps, plan, memory, rows, h, out, count}, coming);
    }
  }

 private:
  //! Of sixteen owners: two neighbours stay together (fragment::param_index).
  static void store_sixteen(i32x16 const& patterns, std::byte* to) noexcept {
    using stored = std::conditional_t<sizeof(param_type) == 2, std::uint16_t, std::uint32_t>;
    constexpr int pair = 2 * static_cast<int>(sizeof(stored));
    std::byte bytes[16 * sizeof(stored)];
    if constexpr (sizeof(stored) == 2) {
      store_as(bytes, encode_ops::low_halves(patterns));
    } else {
      store_as(bytes, patterns);
    }
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < 8; ++i)
      std::memcpy(to + fragment::param_index(2 * i) / 2 * pair, bytes + i * pair, pair);
  }
  void fit(std::int64_t at) const noexcept {
    group_params16 const p =
        codec16<Codec>::fit(codec, {load(memory.low + at), load(memory.high + at), load(memory.count + at)});
    store(memory.value[0] + at, p.value[0]);
    store(memory.value[1] + at, p.value[1]);
    store(memory.work + at, p.work);
    if constexpr (few)
      find_thresholds<Codec, Row>(codec, p, memory.above + at,
                                  static_cast<std::int64_t>(plan.groups) * plan.stride);
  }

  //! Codes of the means of the tokens that remain, for the slots of the others.
  void fill_isolated(int group, int kept) const noexcept {
    if (kept == plan.group) return;
    std::int64_t const first = static_cast<std::int64_t>(group) * plan.stride;
    for (int d = 0; d < plan.width(); d += 16) {
      tree_sum16 sum;
      for (int i = group * plan.group; i < (group + 1) * plan.group; ++i) {
        if (isolated[i] == 0) sum.add(floats16(rows.row(0, i) + d));
      }
      f32x16 const mean = kept > 0 ? encode_ops::div(sum.total(), splat(static_cast<float>(kept))) : f32x16{};
      std::int64_t const at = first + d;
      group_params16 const p{{load(memory.value[0] + at), load(memory.value[1] + at)},
                             load(memory.work + at)};
      store_as(memory.fill + at,
               encode_ops::low_halves(codec16<Codec>::template encode<false>(codec, steps, mean, p)));
    }
  }

  //! One parameter of the groups of all owners of the request into a section.
  void store_plane(int plane, int group, std::uint8_t const* out, std::byte* section) const noexcept {
    constexpr int bytes = static_cast<int>(sizeof(param_type));
    float const* const values = memory.value[plane] + static_cast<std::int64_t>(group) * plan.stride;
    int const section_group = Channelwise ? slot / plan.group + group : group;
    std::byte* const to = section + fragment::param_offset(plan.spec, plane, 0, section_group);
    int const owners = Channelwise ? plan.stride : count;
    for (int owner = 0; owner < owners; owner += 16) {
      i32x16 const v = stored16<param_type>::bits(load(values + owner));
      int const some = owners - owner < 16 ? owners - owner : 16, at = (Channelwise ? 0 : slot) + owner;
      if (some == 16 && at % 16 == 0 && (Channelwise || out == nullptr)) {
        store_sixteen(v, to + fragment::param_index(at) * bytes);
        continue;
      }
      std::uint32_t patterns[16];
      store_as(patterns, v);
      for (int i = 0; i < some; ++i) {
        bool const zero = !Channelwise && out != nullptr && out[owner + i] != 0;
        std::uint32_t const pattern = zero ? 0u : patterns[i];
        std::memcpy(to + fragment::param_index(at + i) * bytes, &pattern, bytes);
      }
    }
  }
};

//! One side of a scheme, all kv heads.
template <class Scheme, class Row>
void encode_side(Scheme const& scheme, codebook_steps const& steps, encode_plan const& plan,
                 encode_memory const& memory, row_request<Row const> const& r) noexcept {
  using facts = encode_facts<Scheme>;
  using codec_type = typename facts::codec_type;
  constexpr bool channelwise = facts::grouping_type::channelwise;
  for (int first = 0; first < r.heads; first += plan.head_span) {
    int const heads = r.heads - first < plan.head_span ? r.heads - first : plan.head_span;
    std::uint8_t const* const isolated =
        r.isolated == nullptr ? nullptr : r.isolated + static_cast<std::int64_t>(first) * r.count;
    auto const next = [&](int h) {
      int const head = first + plan.head_span + h;
      return head < r.heads ? next_rows::of(r.rows, head, r.count, plan.width()) : next_rows{};
    };
    if constexpr (facts::needs_floats) {
      rows_view<float> const rows = hnd_rows(memory.rows, r.count, plan.width());
      for (int h = 0; h < heads; ++h) {
        for (int i = 0; i < r.count; ++i) {
          float* const to = rows.row(h, i);
          for (int d = 0; d < plan.width(); d += 16)
            store(to + d, floats16(r.rows.row(first + h, i) + d));
          scheme.transform.forward(first + h, plan.width(), to);
        }
      }
      span_pass<codec_type, channelwise, float>{
          scheme.codec,       steps, plan,    memory, rows.read_only(), isolated,
          r.sections + first, heads, r.count, r.slot, first == 0}
          .run(next);
    } else {
      rows_view<Row const> const rows = r.rows.starting_at(first, 0);
      span_pass<codec_type, channelwise, Row>{scheme.codec,       steps, plan,    memory, rows,      isolated,
                                              r.sections + first, heads, r.count, r.slot, first == 0}
          .run(next);
    }
  }
}
