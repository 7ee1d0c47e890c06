//! Composes HEIC files of two coded pictures of 64 × 64, which were made with libheif and x265.

/// `support::fields` (red, green above blue, white): its parameter sets and its one NAL unit.
pub(crate) const FIELDS: [&str; 2] = [
    "0103700000009000000000001ef000fcfdf8f800000f03600001001840010c01ffff03700000030090000003000003001eba\
     0240610001002b42010103700000030090000003000003001ea020810596ea4929ae6e021a0c0800000300c8000003000840\
     62000100074401c172b02240",
    "0000003d2801af04783c13772adfe8e4a9fffde8e1b2fee890a2b9cfd84c7bffd61affff7312cefcffccafe8dfb8cbb7ffc5\
     c9f19813fe55f5f0fddd931ff65dfe",
];
/// Black on the left, white on the right, without chroma.
pub(crate) const HALVES: [&str; 2] = [
    "0104080000009ff8000000001ef000fcfcf8f800000f03600001001740010c01ffff0408000003009ff800000300001eba02\
     4061000100264201010408000003009ff800000300001ec08204165ba924a6b9b02000000303200000030021620001000744\
     01c172b02240",
    "000000192801ae13c03b88ebffffee89eae4f3fd554d52f1fffc7cffe0",
];

pub(crate) fn hex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.replace(' ', "").as_bytes()).unwrap()
}

pub(crate) fn a_box(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32 + 8).to_be_bytes()[..], kind, content].concat()
}

pub(crate) fn full(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    a_box(kind, &[&[0; 4], content].concat())
}

pub(crate) fn ispe(width: u32, height: u32) -> Vec<u8> {
    full(b"ispe", &[width.to_be_bytes(), height.to_be_bytes()].concat())
}

pub(crate) fn nclx(primaries: u16, transfer: u16, matrix: u16, full: bool) -> Vec<u8> {
    let points = [primaries, transfer, matrix].map(u16::to_be_bytes).concat();
    a_box(b"colr", &[b"nclx", &points[..], &[u8::from(full) << 7]].concat())
}

/// Code points that libheif writes for sRGB.
pub(crate) fn srgb() -> Vec<u8> {
    nclx(1, 13, 6, true)
}

pub(crate) struct Item {
    pub(crate) kind: [u8; 4],
    pub(crate) data: Vec<u8>,
    pub(crate) properties: Vec<Vec<u8>>,
    pub(crate) refers: Vec<([u8; 4], Vec<u16>)>,
}

pub(crate) fn coded([config, data]: [&str; 2], more: &[Vec<u8>]) -> Item {
    let properties = [&[a_box(b"hvcC", &hex(config)), ispe(64, 64)], more].concat();
    Item { kind: *b"hvc1", data: hex(data), properties, refers: Vec::new() }
}

/// Grid of tiles: the items from 2 on.
pub(crate) fn grid(columns: u8, rows: u8, width: u16, height: u16, more: &[Vec<u8>]) -> Item {
    let (w, h) = (width.to_be_bytes(), height.to_be_bytes());
    let data = [&[0, 0, rows - 1, columns - 1], &w[..], &h].concat();
    let tiles = (2..2 + u16::from(columns) * u16::from(rows)).collect();
    let properties = [&[ispe(width.into(), height.into())], more].concat();
    Item { kind: *b"grid", data, properties, refers: vec![(*b"dimg", tiles)] }
}

/// File of items that are numbered from 1; the first is the picture.
pub(crate) fn heic(items: &[Item]) -> Vec<u8> {
    let ftyp = a_box(b"ftyp", b"heic\0\0\0\0mif1heic");
    let (mut infos, mut ipco, mut ipma, mut iref) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut count = 0_u8;
    for (id, item) in (1_u16..).zip(items) {
        let entry = [&[2, 0, 0, 0], &id.to_be_bytes()[..], &[0, 0], &item.kind, b"\0"].concat();
        infos.extend(a_box(b"infe", &entry));
        ipma.extend(id.to_be_bytes());
        ipma.push(item.properties.len() as u8);
        for property in &item.properties {
            count += 1;
            ipma.push(count | 0x80);
            ipco.extend(property);
        }
        for (kind, to) in &item.refers {
            let to: Vec<u8> = to.iter().flat_map(|to| to.to_be_bytes()).collect();
            let head = [id.to_be_bytes(), (to.len() as u16 / 2).to_be_bytes()].concat();
            iref.extend(a_box(kind, &[head, to].concat()));
        }
    }
    let number = (items.len() as u16).to_be_bytes();
    let iprp = [
        a_box(b"ipco", &ipco),
        full(b"ipma", &[&u32::from(items.len() as u16).to_be_bytes()[..], &ipma].concat()),
    ];
    let meta = |begin: usize| {
        let (mut at, mut iloc) = (begin as u32, [&[0x44, 0][..], &number].concat());
        for (id, item) in (1_u16..).zip(items) {
            iloc.extend([&id.to_be_bytes()[..], &[0, 0, 0, 1], &at.to_be_bytes()].concat());
            iloc.extend((item.data.len() as u32).to_be_bytes());
            at += item.data.len() as u32;
        }
        let parts = [
            full(b"hdlr", b"\0\0\0\0pict\0\0\0\0\0\0\0\0\0\0\0\0\0"),
            full(b"pitm", &1_u16.to_be_bytes()),
            full(b"iinf", &[&number[..], &infos].concat()),
            full(b"iloc", &iloc),
            full(b"iref", &iref),
            a_box(b"iprp", &iprp.concat()),
        ];
        full(b"meta", &parts.concat())
    };
    let begin = ftyp.len() + meta(0).len() + 8;
    let data: Vec<u8> = items.iter().flat_map(|item| item.data.clone()).collect();
    [ftyp, meta(begin), a_box(b"mdat", &data)].concat()
}

pub(crate) fn single(more: &[Vec<u8>]) -> Vec<u8> {
    heic(&[coded(FIELDS, &[&[srgb()], more].concat())])
}
