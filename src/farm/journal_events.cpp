#include <array>

#include "farm/driver.hpp"
#include "farm/time_text.hpp"

namespace gallop {
namespace {

using coordinator::Record;
using Json = nlohmann::json;
using What = Record::What;

std::string text_of(const Json& event, const char* key) {
    const auto found = event.find(key);
    return found != event.end() && found->is_string() ? found->get<std::string>() : std::string();
}

}  // namespace

nlohmann::json journal_event(const Record& record, const std::string& id) {
    Json line = {{"event", coordinator::record_name(record.what)}, {"time", utc_text()}};
    const auto place = [&] {
        if (record.agent != coordinator::no_agent) line["agent"] = record.agent;
        if (!record.host.empty()) line["host"] = record.host;
    };
    switch (record.what) {
        case What::joined:
            place();
            line["slots"] = record.slots;
            line["device"] = record.text;
            break;
        case What::leased:
        case What::done:
        case What::failed:
        case What::released:
            line["id"] = id;
            place();
            line["slot"] = record.slot;
            if (record.what == What::released) {
                line["reason"] = record.text;
                if (record.kind == coordinator::FailureKind::lost) line["kind"] = "lost";
                break;
            }
            line["try"] = record.attempt;
            if (record.what == What::failed) {
                line["kind"] = coordinator::failure_name(record.kind);
                line["error"] = record.text;
            } else {
                line["predicted"] = record.predicted;
            }
            if (record.what == What::done) line["seconds"] = {{"total", record.seconds}};
            break;
        case What::quarantined:
            line["id"] = id;
            line["reason"] = record.text;
            line["tries"] = record.attempt;
            break;
        case What::drained:
        case What::lost:
            place();
            line["reason"] = record.text;
            break;
        case What::paused: line["reason"] = record.text; break;
        case What::resumed: break;
        case What::retry:
        case What::reopened: line["id"] = id; break;
        case What::ended: line["outcome"] = record.text; break;
    }
    return line;
}

nlohmann::json done_details(const message::Done& done, int planned_gpus) {
    Json details = {{"clip", to_json(done.clip)}};
    if (done.latents) details["latents"] = to_json(*done.latents);
    for (const auto& [stage, spent] : done.seconds.stages) details["seconds"][stage] = spent;
    if (done.adopted) details["adopted"] = true;
    if (done.tiled) details["tiled"] = true;
    if (done.strips > 1) details["strips"] = done.strips;
    if (done.gpus > 0 && done.gpus != planned_gpus) details["gpus"] = done.gpus;
    return details;
}

Record record_of(const Json& event, coordinator::ItemIndex item) {
    static constexpr std::array all = {
        What::joined, What::leased,  What::done,       What::failed, What::released,
        What::lost,   What::paused,  What::resumed,    What::retry,  What::reopened,
        What::ended,  What::drained, What::quarantined};
    const std::string name = text_of(event, "event");
    Record record;
    record.what = What::resumed;  // changes nothing lasting
    for (const What what : all)
        if (coordinator::record_name(what) == name) record.what = what;
    record.item = item;
    record.host = text_of(event, "host");
    if (const auto kind = failure_kind(text_of(event, "kind")))
        record.kind = coordinator::failure_kind(name_of(*kind));
    if (const auto seconds = event.find("seconds"); seconds != event.end() && seconds->is_object())
        if (const auto total = seconds->find("total");
            total != seconds->end() && total->is_number())
            record.seconds = total->get<double>();
    return record;
}

}  // namespace gallop
