"""Prompts for a clip: plain sentences in five languages, and the three-part format of the large model."""
NEGATIVE = "A still picture without any sound."

ENGLISH = dict(
    colour=["red", "green", "blue", "yellow", "magenta", "cyan"],
    shape=["ball", "cube", "pyramid"],
    material=["rubber", "wooden", "metal"],
    stuff=["rubber", "wood", "metal"],
    count=["once", "twice", "three times"],
    number=["One thud", "Two thuds", "Three thuds"],
    direction=["moving left", "staying in place", "moving right"],
    place=["at night", "at dusk", "by day"],
)
OTHERS = {
    "German": dict(
        colour=["roter", "grüner", "blauer", "gelber", "magentafarbener", "türkiser"],
        shape=["Ball", "Würfel", "Kegel"],
        stuff=["Gummi", "Holz", "Metall"],
        count=["einmal", "zweimal", "dreimal"],
        direction=["nach links", "auf der Stelle", "nach rechts"],
        place=["bei Nacht", "in der Dämmerung", "am Tag"],
        templates=["Ein {colour} {shape} aus {stuff} springt {count} {direction}, {place}.",
                   "Man sieht {place}: ein {colour} {shape}, {stuff}, hüpft {count} {direction}."]),
    "French": dict(
        colour=["rouge", "vert", "bleu", "jaune", "magenta", "cyan"],
        shape=["ballon", "cube", "cône"],
        stuff=["caoutchouc", "bois", "métal"],
        count=["une fois", "deux fois", "trois fois"],
        direction=["vers la gauche", "sur place", "vers la droite"],
        place=["la nuit", "au crépuscule", "en plein jour"],
        templates=["Un {shape} {colour} en {stuff} rebondit {count} {direction}, {place}.",
                   "On voit, {place}, un {shape} {colour} en {stuff} qui rebondit {count} {direction}."]),
    "Spanish": dict(
        colour=["rojo", "verde", "azul", "amarillo", "magenta", "cian"],
        shape=["balón", "cubo", "cono"],
        stuff=["goma", "madera", "metal"],
        count=["una vez", "dos veces", "tres veces"],
        direction=["hacia la izquierda", "en su sitio", "hacia la derecha"],
        place=["de noche", "al anochecer", "de día"],
        templates=["Un {shape} {colour} de {stuff} rebota {count} {direction}, {place}.",
                   "Se ve, {place}, un {shape} {colour} de {stuff} que bota {count} {direction}."]),
    "Chinese": dict(
        colour=["红色", "绿色", "蓝色", "黄色", "洋红色", "青色"],
        shape=["球", "方块", "锥体"],
        stuff=["橡胶", "木头", "金属"],
        count=["一次", "两次", "三次"],
        direction=["向左", "在原地", "向右"],
        place=["夜晚", "黄昏", "白天"],
        templates=["{place},一个{colour}的{stuff}{shape}{direction}弹跳{count}。",
                   "{colour}{shape},{stuff}做的,{direction}弹了{count},{place}。"]),
}
PLAIN = [
    "A {colour} {material} {shape} bounces {count}, {direction}, {place}.",
    "{Place}, a {colour} {shape} made of {stuff} bounces {count}, {direction}.",
    "We see a {material} {shape}. It is {colour}. It bounces {count}, {direction}. It is filmed {place}.",
    "A {shape} of {colour} {stuff} falls and hits the ground {count}, {direction}, {place}.",
    "{Direction}, a {colour} {material} {shape} falls {place} and bounces {count}.",
    "{Place}: {colour} {shape}, {stuff}, bounces {count}, {direction}",
]
THREE_PARTS = ("{body}\n\nDialogue:\n<No dialogue>\n\nBackground Sound:\n<{number} of {stuff}>")


def words_of(clip, table):
    """Each slot's word for that clip; with a capital for slots so named."""
    index = dict(colour=clip.colour, shape=clip.shape, material=clip.material, stuff=clip.material,
                 count=clip.bounces - 1, number=clip.bounces - 1, direction=clip.direction, place=clip.place)
    words = {slot: table[slot][index[slot]] for slot in index if slot in table}
    return words | {slot.capitalize(): w[0].upper() + w[1:] for slot, w in words.items()}


def plain(clip, rng):
    return PLAIN[int(rng.integers(len(PLAIN)))].format(**words_of(clip, ENGLISH))


def three_parts(clip, rng):
    return THREE_PARTS.format(body=plain(clip, rng), **words_of(clip, ENGLISH))


def foreign(clip, rng):
    table = list(OTHERS.values())[int(rng.integers(len(OTHERS)))]
    return table["templates"][int(rng.integers(len(table["templates"])))].format(**words_of(clip, table))


def prompt(clip, rng):
    kind = rng.random()
    return (plain if kind < 0.7 else three_parts if kind < 0.8 else foreign)(clip, rng)
