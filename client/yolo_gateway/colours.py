"""The service's colours of classes (its gateway/vision/colours.py makes them; a test compares)."""

Colour = tuple[int, int, int]  # sRGB

_PALETTE = bytes.fromhex(
    "ff333300ff000044ff22772266ccffdd00ffffbb33885599ff99ff55bb66aa77226688ff88ffcc8800eedd55aabb00440077aaff9999"
    "00aabbddee00bb00aaee8811bb88dd00ddbbaa55ddaacc114499005555ccff55eeaa4400cc666600dd55bbaa44ccdd88009977ff6688"
    "dd007799aaff00aaff00eeff88ff777755ffff00bb8899447777000077ee8877cc994455ff77cc8833bbdd0000cc66ff00bb00dd6600"
    "aa2277dd88aa88cc88bb55884488ccbb00ddffbbffffdd5544ee99ff22775522ffdd00cc9977ffff7755dd99ddeeaa66dd88ffaa33ff"
    "ddcc0044bbdd77aa0000bb99aa44aabb66bb448844ff11ff88ee00dd4466bb44550066cc8855cc6699ddff55aa11aa66dd8866bb1100"
    "dd55dd4455ffcc339999bb44cc440000cccc99ee9966ffffff99cc6666bbcc8800ee2299dd77ccaaff0088dd6655eecc77cc00ee0044"
    "9933ddccaaff008800ff77ffbbcc66dd6688ff5500eecc77ddee779966aa7744dd996600bb663300ff7755ddddee6666ddaa00cc44ee"
    "5577dd9955ffaa990000dd88994477bbdd44aa554444cc99cc77aa88ddaa00cc6622ee444466aa9988dd7733ffcc44bb55995533ffbb"
    "993399ee9977888800cc7755ff9900ee8888eeaaee2288ffbb99ff8899ff00aaddbb77ee9900bb5566ee00aa99ff88aa44bbff0099bb"
    "dd00aaffaa88ff11dd00aa11ff55cc00886677aa6622cc00dd99550055dddd44882277cc7766ddddbb55dd554477aaee0099eeff4466"
    "ccbb0000bbbbcc225566bb00668800aa77ccffbb775577bb779900aa88ff6655aa00ddffaa3333bb33777788dd99dd1199aa44557722"
    "ee44bb66bb8877ee669966cc77cc66ffdd88aa881188bbff00cceeee440066dd00aaee445577ffbb55ff7777eeeedd00bb99440066ff"
    "bb008800ffddffcc00aa22bbee7733ee77aa9955115544ee77ff11ee88ddee0066bb33ccaadd7700ee775599ffff8844ee44ee9944bb"
    "aa00eeaa556688ffaa009944aabb66dd9911cc3333bb0066ee66ff9911ff9966eecc77110088bbee66dd8888ff00bb55aa5599bb33ee"
    "bbee7755aa44aa0099dd7777"
)


def class_colour(class_id: int) -> Colour:
    """The colour of a class, the same in every picture; they repeat after 256 classes."""
    at = class_id % (len(_PALETTE) // 3) * 3
    return _PALETTE[at], _PALETTE[at + 1], _PALETTE[at + 2]


def ink_on(ground: Colour) -> Colour:
    """Black or white, whichever contrasts more by WCAG 2.2."""
    red, green, blue = (
        each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in (part / 255 for part in ground)
    )
    return (0, 0, 0) if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else (255, 255, 255)
