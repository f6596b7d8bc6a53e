// SPDX-License-Identifier: Apache-2.0
//! @file kvcrumb-lm: a language model that runs on the packed caches of kvcrumb.
#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <kvcrumb/version.hpp>

#include "commands.hpp"

namespace {

using namespace kvcrumb_lm;

void add_model(CLI::App& app, model_arguments& a) {
  app.add_option("--model", a.folder, "folder with config.json, tokenizer.json and model.safetensors")
      ->required();
  app.add_option("--threads", a.threads, "0: one for each processor")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--bos", a.bos,
                 "the token that begins every text: auto (as tokenizer.json says), yes (bos_token_id), no")
      ->check(CLI::IsMember({"auto", "yes", "no"}))
      ->capture_default_str();
}

void add_text(CLI::App& app, text_arguments& a) {
  app.add_option("--text", a.file, "text file, UTF-8")->required();
  app.add_option("--tokens", a.tokens, "how many of its tokens, 0: all")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 40))
      ->capture_default_str();
  app.add_option("--skip", a.skip, "leave out so many tokens at its beginning")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 40))
      ->capture_default_str();
}

CLI::Option* add_chunk(CLI::App& app, int& chunk) {
  return app
      .add_option("--chunk", chunk,
                  "tokens that are appended to the cache before their queries attend to it; 1: decoding, "
                  "token by token")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Runs Llama, Mistral, Qwen2 and Qwen3 models on quantized KV caches and compares what they predict.",
      "kvcrumb-lm"};
  app.require_subcommand(1);
  app.set_version_flag("--version", fmt::format("kvcrumb {}.{}.{}", KVCRUMB_VERSION_MAJOR,
                                                KVCRUMB_VERSION_MINOR, KVCRUMB_VERSION_PATCH));

  eval_arguments eval;
  eval.schemes = "fp16,fp32,q8_0,kivi4,q4_0,qserve4,nqkv4,kivi2,ott2,crumb2,kvarn2,turboquant2";
  auto* const evaluate =
      app.add_subcommand("eval", "perplexity and KL divergence of every scheme against fp16");
  add_model(*evaluate, eval.model);
  add_text(*evaluate, eval.text);
  add_chunk(*evaluate, eval.chunk);
  evaluate->add_option("--context", eval.context, "tokens of a window; the text is cut into windows")
      ->check(CLI::Range(std::int64_t{2}, std::int64_t{1} << 24))
      ->capture_default_str();
  evaluate
      ->add_option("--schemes", eval.schemes,
                   "names separated by commas, or all; with options: ott2:pool=3,window=32,group=32,trace=2")
      ->capture_default_str();
  evaluate->add_option("--base", eval.base,
                       "file of the base's log-probabilities: read if it exists, else written");
  evaluate->add_flag("--half-base", eval.half_base,
                     "compute the base in f16: half the size, and a floor under KLD");
  evaluate->add_option("--calibration", eval.calibration,
                       "text for the schemes that calibrate; default: what follows the tokens evaluated");
  evaluate->add_option("--json", eval.json, "write JSON to this file; -: print it instead of the table");
  evaluate->add_flag("--each-token", eval.each_token, "JSON holds divergence and loss of every token");
  evaluate->add_option("--html", eval.html, "write a page with a picture to this file");

  generate_arguments gen;
  auto* const generate = app.add_subcommand("generate", "continues a text on the fp16 cache and on others");
  add_model(*generate, gen.model);
  add_chunk(*generate, gen.chunk);
  generate->add_option("--prompt", gen.prompt, "the text to continue")->required();
  generate->add_option("--scheme", gen.scheme, "one scheme or several, as in eval")->capture_default_str();
  generate->add_option("--tokens", gen.tokens, "how many")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  generate->add_option("--temperature", gen.temperature, "0: always the most probable token")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  generate->add_option("--seed", gen.seed, "of the numbers that tokens are drawn with")
      ->capture_default_str();

  dump_arguments dump, logits, words;
  dump.text.tokens = logits.text.tokens = 1024;
  auto* const record = app.add_subcommand("dump", "records queries, keys and values for kvcrumb-compare");
  add_model(*record, dump.model);
  add_text(*record, dump.text);
  record->add_option("--output", dump.output, "the .safetensors file to write")->required();
  risk_arguments risk;
  risk.text.tokens = 1024;
  auto* const assess =
      app.add_subcommand("risk", "which layers are hard to quantize, and what to do (docs/risk.md)");
  add_model(*assess, risk.model);
  add_text(*assess, risk.text);
  assess->add_flag("--json", risk.json, "print JSON instead of text");
  assess->add_option("--html", risk.html, "write a page to this file, too");
  auto* const predict = app.add_subcommand("logits", "writes the logits of every token of a text");
  add_model(*predict, logits.model);
  add_text(*predict, logits.text);
  add_chunk(*predict, logits.chunk);
  predict->add_option("--scheme", logits.scheme, "the cache")->capture_default_str();
  predict->add_option("--output", logits.output, "the .safetensors file to write")->required();
  auto* const tokenize = app.add_subcommand("tokenize", "prints the token numbers of a text");
  tokenize->add_option("--model", words.model.folder, "folder with tokenizer.json")->required();
  tokenize->add_option("--text", words.text.file, "text file, UTF-8")->required();
  auto* const list = app.add_subcommand("schemes", "lists the schemes");

  CLI11_PARSE(app, argc, argv);
  for (int i = 0; i < argc; ++i)
    eval.command += fmt::format("{}{}", i == 0 ? "" : " ", i == 0 ? "kvcrumb-lm" : argv[i]);
  if (*evaluate) return run_eval(eval);
  if (*generate) return run_generate(gen);
  if (*record) return run_dump(dump);
  if (*assess) return run_risk(risk);
  if (*predict) return run_logits(logits);
  if (*tokenize) return run_tokenize(words);
  if (*list) return run_list();
  return 2;
}
