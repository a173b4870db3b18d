"""Words around a number, in many languages: multiples, and words that make it another answer."""

import re
import unicodedata

_NAMES = {
    "10": "十", "12": "dozen dozens", "100": "hundred hundreds 百 백",
    "10^{3}": "thousand thousands mil mille mila tausend duizend tusen ribu 千 천 "
    "тысяч тысяча "
    "тысячи тыс हज़ार "
    "हजार ألف آلاف",
    "10^{4}": "万 萬 만", "10^{5}": "lakh lakhs lac lacs लाख",
    "10^{6}": "million millions mn mln mio millionen millón millones milhão milhões "
    "milione milioni miljoen miljoner milyon juta миллион "
    "миллиона "
    "миллионов млн "
    "مليون ملايين",
    "10^{7}": "crore crores करोड़ करोड",
    "10^{8}": "亿 億 억",
    "10^{9}": "billion billions bn milliard milliards milliarde milliarden miliardi mrd "
    "миллиард млрд "
    "миллиарда "
    "миллиардов مليار",
    "10^{12}": "trillion trillions",
}  # fmt: skip
#: Words that multiply the number before them -> the factor as LaTeX.
MULTIPLES = {
    unicodedata.normalize("NFKC", word): factor
    for factor, words in _NAMES.items()
    for word in words.split()
}
_LONG = sorted((word for word in MULTIPLES if len(word) > 1), key=len, reverse=True)
#: Chinese, Japanese and Korean write the next word without a space.
_SIGNS = "".join(word for word in MULTIPLES if len(word) == 1)
MULTIPLE = rf"(?:(?:{'|'.join(_LONG)})(?![^\W\d_]|[\u093c-\u094d])|[{_SIGNS}](?!分))"

#: Units in other languages; the words of a line name the unit before the colon.
FOREIGN_UNITS = """
mm: 毫米 мм
cm: 厘米 centimetro 公分 см сантиметр сантиметра сантиметров センチ zentimeter centimètre centímetro
m: 米 公尺 м メートル 미터 mètre metro метр метра метров
km: 千米 chilometro 公里 км километр километра километров キロメートル kilomètre kilómetro
kg: 千克 公斤 кг килограмм килограмма килограммов kilogramm kilogramme kilogramo
g: 克 \u0433 грамм грамма граммов gramm gramme gramo
s: 秒 秒钟 сек секунд секунды sekunde sekunden seconde segundo
min: 分钟 分鐘 分 分間 мин минута минуты минут minuten minuto
h: 小时 小時 時間 시간 ч час часа часов stunde stunden heure hora ora
week: 周 週 星期 неделя недели недель semaine semana woche wochen
day: 天 день дня дней tag tage tagen jour día dia giorno
year: 年 岁 лет год года jahr jahre jahren ans año
l: 升 л litro
ml: 毫升 мл
degree: 度 градусов grad degré grado
JPY: 元 块 円 人民币
$: 美元 美金 ドル доллар долларов dólar dólares
INR: रुपये रुपए
"""

_ORDINALS = (
    "halve|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|twelfth|sixteenth|twentieth|"
    "hundredth|thousandth|millionth"
)
#: Words after a number that make it another number, one of several, or wrong.
CHANGES = re.compile(
    r"\b(?:squared|cubed|factorial|tens|divided|multiplied|remainder|out of|negative|below|"
    r"versus|vs|through|until|till|between|cannot|wrong|incorrect|false|excluded|"
    r"oder|und|bis|halb|halbe|weniger|mehr|nicht|kein|keine|geteilt|ou|et|demie?|moins|pas|"
    r"divisé|hasta|menos|más|medio|media|dividido|mezzo|meno|diviso|lub|albo|pół|"
    r"veya|atau|hoặc|и|или|до|не|больше|"
    r"меньше|половиной)\b"
    rf"|\b(?:{_ORDINALS})s?\s*$|\bhalves\b|n't\b"
    r"|times(?!\s*$|\s+(?:as|more)\b)|[或和与到至不非半余几]"
    r"|以上|以下|分之|또는|이상|이하"
    r"|または|から|まで|أو|ليس"
    r"|या|और",
    re.IGNORECASE,
)


def changed(rest: str) -> bool:
    """Whether the words right after a number make it another answer: "out of 6", "squared"."""
    near = re.match(r"\s*(?:[^\W\d_]|[.'/])*\s*(?:[^\W\d_]|['])*(?:\s+of\b)?", rest)
    if near and CHANGES.search(near[0]):
        return True
    # 5 hours and 30 minutes, 5 feet 6 inches
    compound = r"\s*(?:over\s+[$\\]*[0-9]|[^\W\d_]+\s+(?:and\s+)?[0-9]+\s*[^\W\d_])"
    return re.match(compound, rest) is not None
