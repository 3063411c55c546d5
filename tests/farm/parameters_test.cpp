#include "farm/parameters.hpp"

#include "farm/manifest_case.hpp"

namespace gallop {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class ParametersTest : public test::ManifestCase {};

TEST_F(ParametersTest, StandInPathsAndTexts) {
    const std::string text =
        "version: 1\nname: study\n"
        "params: {root: {type: path, default: runs}, who: barista, model: model}\n"
        "model: {path: \"{{param.model}}\"}\n"
        "outputs: {root: \"{{param.root}}/{{name}}\"}\n"
        "items: [{prompt: \"A {{ param.who }} says {{name}}\"}]\n";
    EXPECT_EQ(parse(text).outputs.root, "runs/study");
    EXPECT_EQ(clips(text)[0].item.prompt, "A barista says study");
    EXPECT_EQ(parse(text, {{}, {"root=.", "who=man"}}).outputs.root, "./study") << "--param";
    EXPECT_EQ(parse(text, {{"name=other"}, {}}).outputs.root, "runs/other") << "--set wins";
}

TEST_F(ParametersTest, KeepTheirTypes) {
    const std::string text = with_items(
        "params: {n: {type: whole, default: 3}, speed: {type: number}, mode: {type: choice, "
        "values: "
        "[fast, slow], default: fast}}\n"
        "items: [{prompt: \"{{param.n}} {{param.mode}}\", steps.base: \"{{param.n}}\", shift: "
        "\"{{param.speed}}\"}]\n");
    const Item item = clips(text, {{}, {"speed=2.5"}})[0].item;
    EXPECT_EQ(item.base.steps, 3);
    EXPECT_EQ(item.base.shift, 2.5);
    EXPECT_EQ(item.prompt, "3 fast");
    EXPECT_THAT(mistakes(text), ElementsAre(HasSubstr("param speed has no default (give it with "
                                                      "--param speed=VALUE)"),
                                            HasSubstr("shift is")));
    EXPECT_THAT(
        mistakes(text, {{}, {"speed=x", "mode=fats", "m=1", "=1"}}),
        testing::IsSupersetOf(
            {HasSubstr("--param speed=x: param speed is x (must be a number)"),
             HasSubstr("--param mode=fats: param mode is fats (must be one of: fast, slow)"),
             HasSubstr("--param m=1: no param \"m\" (declared: mode, n, speed)"),
             HasSubstr("--param =1: must be NAME=VALUE")}));
}

TEST_F(ParametersTest, AreReplacedByLaterDeclarations) {
    write("low.yaml",
          "params: {n: {type: whole, default: 3}}\ndefaults: {steps.base: \"{{param.n}}\"}\n");
    EXPECT_EQ(only("use: [low.yaml]\nitems: [{prompt: p}]").base.steps, 3);
    EXPECT_EQ(only("use: [low.yaml]\nparams: {n: {type: whole, default: 4}}\nitems: [{prompt: p}]")
                  .base.steps,
              4);
}

TEST_F(ParametersTest, RefuseWhatNobodyDeclared) {
    EXPECT_THAT(
        mistakes(with_items("params: {root: x}\nitems: [{prompt: \"{{param.rot}}\"}, {name: b, "
                            "prompt: \"{{open\"}]\n")),
        ElementsAre("5:18: unknown template {{param.rot}} (known: name, param.root); did you "
                    "mean param.root?",
                    "5:54: \"{{open\" opens a template that has no end"));
    EXPECT_THAT(mistakes(with_items("items: [{prompt: \"{{one}} {{name}} {{two}}\"}]\n")),
                ElementsAre("4:18: unknown template {{one}} (known: name)",
                            "4:18: unknown template {{two}} (known: name)"));
    EXPECT_THAT(
        mistakes(with_items(
            "params: {a: {type: txt}, b: {defualt: 1}, c: [1]}\nitems: [{prompt: p}]\n")),
        testing::IsSupersetOf({HasSubstr("type is txt (must be one of"),
                               HasSubstr("unknown key \"defualt\"; did you mean \"default\"?"),
                               HasSubstr("param c is a list (must be a plain value)")}));
    EXPECT_THAT(mistakes(with_items("items: [{prompt: p}]\n"), {{}, {"x=1"}}),
                ElementsAre("--param x=1: the manifest declares no params"));
}

}  // namespace
}  // namespace gallop
