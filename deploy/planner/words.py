"""The words that the offline planner knows, in English and Chinese, and what each stands for.

A noun stands for a kind of thing; what it looks like is in ``recognition.py`` and ``shapes.py``. Names of one thing
share an entry.
"""

from __future__ import annotations

NOUNS: dict[str, tuple[str, ...]] = {
    "object": (
        "object", "objects", "thing", "things", "item", "items", "one", "ones", "stuff", "东西", "物体", "物品",
        "物件",
    ),
    "can": ("can", "cans", "tin", "tins", "罐子", "罐头", "易拉罐", "罐"),
    "bottle": ("bottle", "bottles", "瓶子", "水瓶", "瓶"),
    "jar": ("jar", "jars", "广口瓶", "罐瓶"),
    "cup": ("cup", "cups", "glass", "glasses", "tumbler", "tumblers", "beaker", "杯子", "水杯", "纸杯", "杯"),
    "mug": ("mug", "mugs", "马克杯"),
    "bowl": ("bowl", "bowls", "碗"),
    "plate": ("plate", "plates", "dish", "dishes", "saucer", "saucers", "盘子", "碟子"),
    "paper roll": ("paper roll", "paper rolls", "roll", "rolls", "toilet roll", "toilet rolls", "纸卷", "卷纸"),
    "goblet": ("goblet", "goblets", "chalice", "wine glass", "wine glasses", "高脚杯"),
    "candle": ("candle", "candles", "蜡烛"),
    "light bulb": ("light bulb", "light bulbs", "bulb", "bulbs", "灯泡"),
    "box": ("box", "boxes", "package", "packages", "packet", "packets", "盒子", "纸盒", "盒"),
    "carton": ("carton", "cartons", "milk carton", "milk cartons", "牛奶盒", "纸箱"),
    "block": ("block", "blocks", "cube", "cubes", "brick", "bricks", "积木", "方块", "木块"),
    "book": ("book", "books", "notebook", "notebooks", "书", "书本", "本子"),
    "sponge": ("sponge", "sponges", "海绵"),
    "bar of soap": ("bar of soap", "bars of soap", "soap", "soaps", "soap bar", "肥皂", "香皂"),
    "bag": ("bag", "bags", "crisp bag", "chip bag", "袋子", "包装袋", "袋"),
    "pouch": ("pouch", "pouches", "sachet", "sachets", "小袋子", "小袋"),
    "tube": ("tube", "tubes", "软管", "牙膏", "管子"),
    "remote control": ("remote control", "remote controls", "remote", "remotes", "遥控器"),
    "piece of cheese": ("piece of cheese", "pieces of cheese", "cheese", "wedge", "wedges", "奶酪", "芝士"),
    "apple": ("apple", "apples", "苹果"),
    "orange": ("oranges", "tangerine", "tangerines", "橙子", "橘子"),
    "lemon": ("lemon", "lemons", "柠檬"),
    "pear": ("pear", "pears", "梨子", "梨"),
    "bell pepper": ("bell pepper", "bell peppers", "pepper", "peppers", "甜椒", "青椒", "彩椒"),
    "banana": ("banana", "bananas", "香蕉"),
    "carrot": ("carrot", "carrots", "胡萝卜"),
    "cucumber": ("cucumber", "cucumbers", "黄瓜"),
    "ball": ("ball", "balls", "球"),
    "screwdriver": ("screwdriver", "screwdrivers", "螺丝刀"),
    "hammer": ("hammer", "hammers", "锤子"),
    "spoon": ("spoon", "spoons", "勺子", "汤匙"),
    "brush": ("brush", "brushes", "刷子"),
    "torch": ("torch", "torches", "flashlight", "flashlights", "手电筒", "手电"),
    "marker": ("marker", "markers", "pen", "pens", "pencil", "pencils", "记号笔", "马克笔", "笔"),
    "toy car": ("toy car", "toy cars", "car", "cars", "玩具车", "小汽车", "汽车"),
    "fruit": ("fruit", "fruits", "水果"),
    "tool": ("tool", "tools", "工具"),
}  # fmt: skip

# Nouns that people use for one another: who says "the red cup" and sees no red cup may mean a red mug.
ALIKE: tuple[frozenset[str], ...] = (
    frozenset({"cup", "mug", "goblet"}),
    frozenset({"box", "carton", "block", "book", "sponge", "bar of soap"}),
    frozenset({"bag", "pouch"}),
    frozenset({"can", "jar", "candle"}),
    frozenset({"ball", "orange", "apple"}),
    frozenset({"apple", "pear", "lemon"}),
)

COLOURS: dict[str, tuple[str, ...]] = {
    "red": ("red", "红色", "红"),
    "orange": ("orange", "橙色", "橘色", "橘黄色"),
    "yellow": ("yellow", "黄色", "黄"),
    "green": ("green", "绿色", "绿"),
    "blue": ("blue", "navy", "蓝色", "蓝"),
    "turquoise": ("turquoise", "cyan", "teal", "青色", "青绿色", "蓝绿色"),
    "purple": ("purple", "violet", "紫色", "紫"),
    "pink": ("pink", "rose", "粉色", "粉红色", "粉"),
    "white": ("white", "白色", "白"),
    "black": ("black", "黑色", "黑"),
    "grey": ("grey", "gray", "silver", "灰色", "银色", "灰"),
    "brown": ("brown", "棕色", "褐色", "咖啡色"),
}

SHAPES: dict[str, tuple[str, ...]] = {
    "round": ("round", "circular", "spherical", "ball-shaped", "圆形", "圆的", "圆"),
    "long": ("long", "elongated", "stick-like", "长条形", "细长", "长条", "长"),
    "flat": ("flat", "thin", "low", "扁平", "扁", "薄"),
    "square": ("square", "rectangular", "box-shaped", "angular", "方形", "长方形", "方"),
    "tall": ("tall", "high", "高"),
    "short": ("short", "矮", "短"),
    "big": ("big", "large", "大"),
    "small": ("small", "little", "tiny", "小"),
}

PLACES: dict[str, tuple[str, ...]] = {
    "left": (
        "on the left hand side", "on the left side", "to the left", "on the left", "at the left", "left hand", "left",
        "左边", "左侧", "左手边", "左面", "左",
    ),
    "right": (
        "on the right hand side", "on the right side", "to the right", "on the right", "at the right", "right hand",
        "right", "右边", "右侧", "右手边", "右面", "右",
    ),
    "middle": (
        "in the middle", "in the center", "in the centre", "at the center", "at the centre", "middle", "center",
        "centre", "central", "中间", "中央", "正中",
    ),
    "near": ("in front", "at the front", "front", "in the front", "前面", "前方", "近处"),
    "far": ("at the back", "in the back", "back", "rear", "at the rear", "后面", "后方", "远处"),
}  # fmt: skip

SUPERLATIVES: dict[str, tuple[str, ...]] = {
    "left": (
        "leftmost", "furthest left", "farthest left", "furthest to the left", "farthest to the left", "最左边",
        "最左侧", "最左",
    ),
    "right": (
        "rightmost", "furthest right", "farthest right", "furthest to the right", "farthest to the right", "最右边",
        "最右侧", "最右",
    ),
    "near": (
        "nearest to the robot", "closest to the robot", "nearest to you", "closest to you", "nearest", "closest",
        "frontmost", "离机器人最近", "最近", "最靠前", "最前面",
    ),
    "far": (
        "farthest from the robot", "furthest from the robot", "farthest away", "furthest away", "farthest",
        "furthest",
        "离机器人最远", "最远", "最靠后", "最后面",
    ),
    "middle": ("middlemost", "most central", "最中间"),
    "big": ("biggest", "largest", "最大"),
    "small": ("smallest", "tiniest", "最小"),
    "tall": ("tallest", "highest", "最高"),
    "short": ("shortest", "lowest", "最矮"),
    "long": ("longest", "最长"),
    "flat": ("flattest", "thinnest", "最扁", "最薄"),
    "round": ("roundest", "最圆"),
}  # fmt: skip

RELATIONS: dict[str, tuple[str, ...]] = {
    "left": ("on the left hand side of", "on the left side of", "to the left of", "on the left of", "left of"),
    "right": ("on the right hand side of", "on the right side of", "to the right of", "on the right of", "right of"),
    "near": ("in front of", "before"),
    "far": ("behind", "at the back of", "in back of", "beyond"),
    "beside": (
        "next to", "beside", "close to", "near to", "near", "by", "adjacent to", "touching", "旁边", "附近", "旁",
    ),
    "between": ("in between", "between", "之间"),
}  # fmt: skip

ALL: tuple[str, ...] = (
    "all of the", "all the", "all of", "all", "every", "each", "any and all", "both", "所有的", "所有", "全部的",
    "全部",
    "每个", "每一个", "一切", "都",
)  # fmt: skip
EVERYTHING: tuple[str, ...] = ("everything", "anything", "所有东西", "所有物体", "全部东西", "一切东西")
CLEAR: tuple[str, ...] = (
    "clear up the table", "clear the table", "clear the desk", "clean up the table", "clean up the desk",
    "clean the table", "clean the desk", "clean up", "clear up", "clear off the table", "empty the table",
    "tidy up the table", "tidy the table", "tidy up",
    "清理桌面", "清理桌子", "清空桌面", "清空桌子", "收拾桌面", "收拾桌子", "整理桌面", "整理桌子", "清桌子",
)  # fmt: skip
EXCEPT: tuple[str, ...] = ("except for", "except", "but not", "other than", "apart from", "besides", "除了", "除")
AND: tuple[str, ...] = ("and", "or", "和", "或者", "或", "与", "以及")

# Words that carry no choice: verbs of taking and placing, politeness, articles, the place to put things.
IGNORED: tuple[str, ...] = (
    "pick up", "picks up", "pick", "grasp", "grab", "take", "lift", "get", "fetch", "remove", "collect", "move",
    "put",
    "place", "throw", "drop", "bring", "hand", "give", "sort", "hold", "up", "away", "out", "off",
    "into the bin", "in the bin", "to the bin", "into the box on the side", "into the basket", "in the basket",
    "into the bucket", "in the bucket", "in the trash", "into the trash", "in the rubbish bin", "off the table",
    "from the table", "on the table", "that are on the table", "from the desk", "on the desk", "side",
    "please", "can you", "could you", "would you", "now", "then", "just", "me", "us", "for", "you", "i want",
    "i would like",
    "i need", "a", "an", "the", "this", "that", "those", "these", "is", "are", "which", "of", "with", "it", "them",
    "coloured", "colored", "color", "colour", "shaped", "standing", "lying", "located", "single", "most", "to",
    "拿起来", "拿起", "拿走", "拿出", "拿", "抓起", "抓取", "抓住", "抓", "取走", "取", "捡起", "捡", "移走",
    "移开", "举起", "夹起",
    "放进垃圾桶里", "放进垃圾桶", "放到垃圾桶里", "放入垃圾桶", "放进箱子里", "放进箱子", "放入箱子", "放到箱子里",
    "放进篮子里",
    "放进篮子", "放入篮子", "扔进垃圾桶", "扔掉", "放进桶里", "放好", "收走", "收起", "收起来", "起来", "以外",
    "之外", "外",
    "桌子上", "桌面上", "桌上", "上面", "请你", "请", "帮我", "麻烦", "给我", "一下", "把", "将", "那个", "这个",
    "那些", "这些", "那",
    "这", "一个", "个", "只", "瓶装", "的", "了", "在", "里", "们", "我", "你", "位于", "颜色", "是", "吧",
    "机器人", "离",
)  # fmt: skip


def alike(noun: str) -> frozenset[str]:
    """The other nouns that people use for such a thing."""
    return frozenset().union(*(group for group in ALIKE if noun in group)) - {noun}
