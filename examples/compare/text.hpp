// SPDX-License-Identifier: Apache-2.0
//! @file text: strings out of foreign files made safe for a terminal, for JSON and for HTML.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace kvcrumb_compare {

//! The text with every control character and every byte that is not valid UTF-8 replaced by U+FFFD, so that
//! it can neither steer a terminal nor break JSON. Longer than `limit` bytes: cut there, "..." appended.
std::string printable(std::string_view text, std::size_t limit = 2000);

//! printable(text) with & < > " ' written as entities: safe as HTML text and inside a quoted attribute.
std::string escape_html(std::string_view text, std::size_t limit = 2000);

//! RFC 4648 base64 with padding, for data URIs.
std::string base64(std::string_view bytes);

}  // namespace kvcrumb_compare
