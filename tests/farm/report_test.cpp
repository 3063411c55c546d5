#include "farm/report.hpp"

#include <chrono>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/log.hpp"
#include "farm/report_page.hpp"
#include "media/command.hpp"
#include "support/test_run.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using test::TestRun;
using testing::HasSubstr;
using testing::Not;

TEST(HtmlText, EscapesWhatMeansSomething) {
    EXPECT_EQ(html_text("a<b>&\"c'"), "a&lt;b&gt;&amp;&quot;c&#39;");
    EXPECT_EQ(html_text("ü日"), "ü日");
    EXPECT_EQ(html_text("x\xff"), "x\xEF\xBF\xBD");
}

TEST(ScriptJson, EndsNoScript) {
    EXPECT_EQ(script_json({{"p", "</script><!--"}}), R"({"p":"\u003c/script>\u003c!--"})");
    EXPECT_EQ(script_json("ü\u2028"), "\"\\u00fc\\u2028\"");
}

TEST(ThroughputSvg, DrawsABarForEachSpan) {
    EXPECT_EQ(throughput_svg({}), "");
    // 100 s and four clips: two spans of 50 s; three clips in the first, one in the last.
    const std::string svg = throughput_svg({1000, 1001, 1002, 1099});
    std::size_t bars = 0;
    for (std::size_t at = 0; (at = svg.find("<rect", at)) != std::string::npos; ++at) ++bars;
    EXPECT_EQ(bars, 2U);
    EXPECT_THAT(svg, HasSubstr("<title>3 clips, 216.0 an hour</title>"));
    EXPECT_THAT(svg, HasSubstr("<title>1 clips, 72.0 an hour</title>"));
    EXPECT_THAT(svg, HasSubstr(">500</text>"));  // the axis ends at a round number
    EXPECT_THAT(svg, HasSubstr(">1:40</text>"));
    EXPECT_THAT(throughput_svg({5}), HasSubstr("<rect"));
}

class ReportTest : public testing::Test {
protected:
    ReportTest() { set_log_level(LogLevel::error); }
    ~ReportTest() override { set_log_level(LogLevel::info); }
};

TEST_F(ReportTest, ShowsProgressStagesHostsFailuresAndClips) {
    TestRun run(5, [](RunConfig& config) {
        config.name = "a <study>";
        config.sweep = {{"guidance", {3.0, 5.0}}};
    });
    run.attempt(1, 2);
    run.render(0, 0);
    run.render(1, 1);
    run.failed(2, "error", "latents <are> not finite", 1);
    run.quarantined(2, "failed on two hosts", "latents <are> not finite");
    run.failed(3, "crash", "signal 9");
    fs::create_directories(run.path() / "logs");
    std::ofstream log(run.path() / "logs" / "renderer-n0-0-0.log");
    for (int line = 0; line < 50; ++line) log << "before " << line << "\n";
    log << "error item=item2 & its end\n";
    for (int line = 0; line < 50; ++line) log << "after " << line << "\n";
    log.close();

    ReportCount count = write_report(run.path());
    EXPECT_EQ(count.clips, 2U);
    EXPECT_EQ(count.made, 2U);
    EXPECT_EQ(count.missing, 0U);
    const std::string page = read_text(run.path() / "report" / "index.html");
    EXPECT_THAT(page, HasSubstr("<title>a &lt;study&gt;</title>"));
    EXPECT_THAT(page, HasSubstr("<b>2 of 5</b> clips done"));
    EXPECT_THAT(page, HasSubstr("<tr><td>base</td><td class=n>2</td><td class=n>1.50 s</td>"
                                "<td class=n>0:03</td><td class=n>75.0 %</td>"));
    EXPECT_THAT(page, HasSubstr("<tr><td>n1</td><td>cpu</td><td class=n>1</td><td class=n>2.5 s"
                                "</td><td class=n></td><td class=n>1</td><td>ended</td></tr>"));
    EXPECT_THAT(page, HasSubstr("latents &lt;are&gt; not finite (failed on two hosts)"));
    EXPECT_THAT(page, HasSubstr("error item=item2 &amp; its end"));
    EXPECT_THAT(page, HasSubstr("before 49"));
    EXPECT_THAT(page, Not(HasSubstr("before 20\n")));
    EXPECT_THAT(page, HasSubstr("const axes = {\"guidance\":[3.0,5.0]};"));
    EXPECT_THAT(page, HasSubstr("<script src=\"clips-000.js\"></script>"));
    EXPECT_THAT(page, Not(HasSubstr("http")));  // nothing from elsewhere
    const std::string data = read_text(run.path() / "report" / "clips-000.js");
    const std::string id = run.id(1);
    const std::string folders = id.substr(0, 2) + "/" + id.substr(2, 2) + "/";
    EXPECT_THAT(data, HasSubstr("\"strip\":\"strips/" + folders + id + ".jpg\""));
    EXPECT_THAT(data, HasSubstr("\"video\":\"../clips/" + folders + id + ".mp4\""));
    EXPECT_TRUE(fs::exists(run.path() / "report" / "strips" / id.substr(0, 2) / id.substr(2, 2) /
                           (id + ".jpg")));

    // Strips are made once.
    count = write_report(run.path());
    EXPECT_EQ(count.made, 0U);
    EXPECT_EQ(read_text(run.path() / "report" / "index.html"), page);
}

TEST_F(ReportTest, LeavesStripsForLaterWhenTimeIsShort) {
    TestRun run(2);
    run.attempt(1);
    run.render(0);
    run.render(1);
    const ReportCount count = write_report(run.path(), {.thumbnail_seconds = 0});
    EXPECT_EQ(count.made, 0U);
    EXPECT_EQ(count.missing, 2U);
    EXPECT_THAT(read_text(run.path() / "report" / "clips-000.js"), Not(HasSubstr("strip")));
    fs::resize_file(clip_path(run.path(), run.id(0)), 10);
    EXPECT_EQ(write_report(run.path()).missing, 1U);  // damaged: no picture, but a page
}

TEST_F(ReportTest, SpreadsManyClipsOverScripts) {
    TestRun run(1005);
    run.attempt(1);
    for (std::size_t item = 0; item < 1005; ++item) run.done(item);
    write_report(run.path(), {.thumbnail_seconds = 0});
    EXPECT_THAT(read_text(run.path() / "report" / "clips-001.js"), HasSubstr(run.id(1004)));
    std::ofstream(run.path() / "report" / "clips-002.js") << "of an earlier report";
    write_report(run.path(), {.thumbnail_seconds = 0});
    EXPECT_FALSE(fs::exists(run.path() / "report" / "clips-002.js"));
}

TEST_F(ReportTest, IsWrittenNowAndThenWhileARunIsLive) {
    TestRun run(1);
    run.attempt(1);
    {
        const LiveReport live(run.path(), 0.02, 0.02);
        for (int wait = 0; wait < 500 && !fs::exists(run.path() / "report" / "index.html"); ++wait)
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    EXPECT_TRUE(fs::exists(run.path() / "report" / "index.html"));
    const LiveReport nowhere(run.folder() / "missing", 0.001, 0.001);  // says so and goes on
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
}

/// Opens a report in headless Chromium, in a page that drives it by `script` and says on its console
/// the object `out` that the script fills. Null when Chromium says nothing within two minutes.
nlohmann::json in_browser(const fs::path& run, const std::string& script) {
    const fs::path page = run / "report" / "drive.html";
    std::ofstream(page) << R"(<iframe id=f src=index.html width=1280 height=2400></iframe><script>
        const out = {};
        const wait = ms => new Promise(done => setTimeout(done, ms));
        onload = async () => {
            const page = f.contentDocument;
            const at = id => page.getElementById(id);
            const type = (e, text) => {
                e.value = text;
                e.dispatchEvent(new Event(e.tagName === 'SELECT' ? 'change' : 'input'));
            };
            const cards = () => [...page.querySelectorAll('.clip')];
            try {)" << script
                        << R"(} catch (wrong) { out.wrong = String(wrong); }
            console.log('OUT' + JSON.stringify(out) + 'END');
        };</script>)";
    const std::string folder = run.parent_path().string();
    const auto said = output_of(
        "cd " + folder + " && HOME=" + folder +
        " && export HOME; chromium --headless --no-sandbox " +
        "--disable-gpu --disable-dev-shm-usage --allow-file-access-from-files --mute-audio " +
        "--remote-debugging-port=0 --enable-logging=stderr --user-data-dir=" + folder +
        "/profile file://" + page.string() +
        " >console 2>&1 & browser=$!; for i in $(seq 600); do " +
        "grep -q '}END' console && break; sleep 0.2; done; kill $browser; wait $browser; " +
        "grep -o 'OUT{.*}END' console | head -1");
    if (!said || said->size() < 7) return nullptr;
    return nlohmann::json::parse(said->substr(3, said->rfind("END") - 3), nullptr, false);
}

TEST_F(ReportTest, WorksInABrowser) {
    if (!has_program("chromium")) GTEST_SKIP() << "chromium is not installed: no page is opened";
    TestRun run(6, [](RunConfig& config) { config.sweep = {{"guidance", {3.0, 5.0}}}; });
    run.attempt(1, 2);
    for (std::size_t item = 0; item < 5; ++item) run.render(item, static_cast<int>(item % 2));
    run.failed(5, "error", "latents are not finite");
    run.quarantined(5, "failed on two hosts", "latents are not finite");
    write_report(run.path());
    const auto out = in_browser(run.path(), R"js(
        out.title = page.title;
        out.cards = cards().length;
        out.strips = 0;
        for (const image of page.images) { await image.decode(); if (image.naturalWidth > 0) ++out.strips; }
        type(at('search'), 'item3'); out.by_name = cards().map(card => card.querySelector('b').textContent);
        type(at('search'), ''); type(page.querySelector('#axes select'), '5'); out.by_axis = cards().length;
        cards()[1].click();
        const video = page.querySelector('video');
        for (let i = 0; i < 100 && video.readyState < 1; ++i) await wait(50);
        out.duration = video.duration; out.open = at('player').open;
        at('before').click(); out.second = video.src.split('/').pop();
        at('close').click(); out.closed = !at('player').open;
        out.failure = page.querySelector('.failure summary').textContent;
        out.bars = page.querySelectorAll('svg rect').length > 0;
        out.wide = page.documentElement.scrollWidth <= 1280;)js");
    ASSERT_TRUE(out.is_object()) << "chromium said nothing";
    ASSERT_EQ(out.value("wrong", ""), "") << out;
    EXPECT_EQ(out["title"], "test");
    EXPECT_EQ(out["cards"], 5);
    EXPECT_EQ(out["strips"], 5);
    EXPECT_EQ(out["by_name"], nlohmann::json({"item3"}));
    EXPECT_EQ(out["by_axis"], 2);  // item1 and item3
    EXPECT_EQ(out["open"], true);
    EXPECT_NEAR(out["duration"].get<double>(), 0.2, 0.05);
    EXPECT_EQ(out["second"], run.id(1) + ".mp4");
    EXPECT_EQ(out["closed"], true);
    EXPECT_THAT(out["failure"].get<std::string>(), HasSubstr("latents are not finite"));
    EXPECT_EQ(out["bars"], true);
    EXPECT_EQ(out["wide"], true);
}

TEST_F(ReportTest, StaysUsableWithTenThousandClips) {
    if (!has_program("chromium")) GTEST_SKIP() << "chromium is not installed: no page is opened";
    TestRun run(10000);
    run.attempt(1);
    for (std::size_t item = 0; item < 10000; ++item) run.done(item);
    write_report(run.path(), {.thumbnail_seconds = 0});
    const auto out = in_browser(run.path(), R"js(
        out.cards = cards().length; out.page = at('page').textContent;
        at('on').click(); out.next = cards()[0].querySelector('b').textContent;
        type(at('search'), 'item9999'); out.found = cards().length;
        out.elements = page.querySelectorAll('*').length;)js");
    ASSERT_TRUE(out.is_object()) << "chromium said nothing";
    ASSERT_EQ(out.value("wrong", ""), "") << out;
    EXPECT_EQ(out["cards"], 48);
    EXPECT_EQ(out["page"], "1 / 209");
    EXPECT_EQ(out["next"], "item48");
    EXPECT_EQ(out["found"], 1);
    EXPECT_LT(out["elements"].get<int>(), 1000);
}

}  // namespace
}  // namespace gallop
