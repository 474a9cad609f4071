-- A smaller shop for MariaDB: schema and rows. Every row follows from its number. No default, check, view or trigger:
-- of those nobody can translate the definition, so a migration writes them anew.

create database shop character set utf8mb4 collate utf8mb4_general_ci;
use shop;
set time_zone = '+00:00';

-- A number from 0 to below `sides`, that looks thrown, and is always the same.
create function dice(what varchar(30) character set utf8mb4, number bigint, sides int) returns int deterministic no sql
    return conv(substr(md5(concat(what, number)), 1, 7), 16, 10) % sides;

create table customers (
    id bigint unsigned not null auto_increment primary key,
    email varchar(120) not null,
    name varchar(80) not null,
    phone varchar(30) null,
    newsletter tinyint(1) not null,
    credit_limit decimal(12, 2) null,
    points bigint unsigned not null,
    preferences json null,
    registered_at datetime(6) not null,
    unique key customers_email (email),
    key customers_name (name, registered_at)
);

create table products (
    sku varchar(20) not null primary key,
    title varchar(120) not null,
    kind enum('tea', 'coffee', 'käse', '그릇') not null,
    price decimal(10, 2) not null,
    weight double null,
    description text null,
    discontinued_on date null,
    key products_kind (kind, price)
);

create table orders (
    id int not null auto_increment primary key,
    customer_id bigint unsigned not null,
    status enum('open', 'paid', 'shipped', 'delivered', 'cancelled') not null,
    total decimal(14, 4) not null,
    note text null,
    placed_at datetime(6) not null,
    key orders_status (status, placed_at),
    constraint orders_customer foreign key (customer_id) references customers (id)
);

create table order_items (
    order_id int not null,
    line_no smallint unsigned not null,
    sku varchar(20) not null,
    quantity tinyint unsigned not null,
    unit_price decimal(10, 2) not null,
    gift_text varchar(200) null,
    primary key (order_id, line_no),
    constraint items_order foreign key (order_id) references orders (id) on delete cascade,
    constraint items_product foreign key (sku) references products (sku)
);

create table documents (
    id int unsigned not null auto_increment primary key,
    title varchar(200) not null,
    body mediumtext not null,
    scan mediumblob null,
    digest binary(16) not null,
    stored_at datetime not null,
    unique key documents_digest (digest)
);

create table visits (
    customer_id bigint unsigned null,
    page varchar(100) not null,
    seconds float null,
    at datetime(3) not null
);

insert into customers (email, name, phone, newsletter, credit_limit, points, preferences, registered_at)
select
    concat('customer', seq, '@example.', elt(1 + dice('tld', seq, 4), 'com', 'org', 'de', 'kr')),
    case dice('language', seq, 8)
        when 0 then concat(elt(1 + dice('family', seq, 5), '김', '이', '박', '최', '정'), elt(1 + dice('given', seq, 4), '서연', '민준', '지우', '하은'))
        when 1 then concat(elt(1 + dice('family', seq, 4), '佐藤', '鈴木', '高橋', '田中'), ' ', elt(1 + dice('given', seq, 4), '陽葵', '蓮', '結衣', 'さくら'))
        when 2 then concat('Zoë 🎂 ', elt(1 + dice('family', seq, 3), 'Müller', 'O''Brien', 'Łukasiewicz'))
        else concat(elt(1 + dice('given', seq, 5), 'Jürgen', 'Anaïs', 'Søren', 'José', 'Mary'), ' ', elt(1 + dice('family', seq, 5), 'Smith', 'Núñez', 'Grüßmann', 'Østergård', 'van der Berg'))
    end,
    if(dice('phone', seq, 3) > 0, concat('+49 30 ', lpad(dice('number', seq, 10000000), 7, '0')), null),
    dice('newsletter', seq, 4) = 0,
    if(dice('credit', seq, 5) > 0, dice('limit', seq, 1000000) / 100, null),
    if(dice('rich', seq, 9) = 0, 9223372036854775807 - seq, dice('points', seq, 100000)),
    if(dice('asked', seq, 10) > 0, json_object('language', elt(1 + dice('speaks', seq, 4), 'de', 'en', 'ko', 'ja'),
        'sizes', json_array(36 + dice('size', seq, 12), null, dice('half', seq, 30) / 2), 'street', concat('Schloßstraße ', dice('street', seq, 200))), null),
    '2021-01-01 00:00:00' + interval dice('registered', seq, 100000000) second + interval dice('µ', seq, 1000000) microsecond
from seq_1_to_2000 order by seq;

insert into products
select
    concat('SKU-', lpad(seq, 5, '0')),
    concat(elt(1 + dice('what', seq, 5), 'Teekanne', 'Crème brûlée set', '머그컵', '湯呑み', 'Coffee grinder'), ' No. ', seq),
    elt(1 + dice('kind', seq, 4), 'tea', 'coffee', 'käse', '그릇'),
    (99 + dice('price', seq, 49900)) / 100,
    if(dice('heavy', seq, 6) > 0, dice('weight', seq, 100000) / 7e0, null),
    case dice('described', seq, 4) when 0 then null when 1 then '' else concat('Größe, 크기, 大きさ ☕ | two\nlines\t\\', seq) end,
    if(dice('gone', seq, 10) = 0, '2024-01-01' + interval dice('day', seq, 500) day, null)
from seq_1_to_400 order by seq;

insert into orders (customer_id, status, total, note, placed_at)
select
    1 + dice('customer', seq, 2000),
    elt(1 + dice('status', seq, 5), 'open', 'paid', 'shipped', 'delivered', 'cancelled'),
    0,
    case dice('note', seq, 10) when 0 then '' when 1 then 'Bitte bei Müllers klingeln' when 2 then '문 앞에 놓아 주세요 '
        when 3 then 'NULL' when 4 then 'Café, composed' when 5 then concat('Cafe', convert(unhex('cc81') using utf8mb4)) when 6 then '\\N' end,
    '2024-06-01 00:00:00' + interval seq * 41 minute + interval dice('placed', seq, 1000000) microsecond
from seq_1_to_5000 order by seq;

insert into order_items
select o.id, line.seq, p.sku, 1 + dice('quantity', o.id * 10 + line.seq, 5), p.price,
    case dice('gift', o.id * 10 + line.seq, 20) when 0 then 'Alles Gute! 🎂' when 1 then '생일 축하해' when 2 then '   ' end
from orders o
join seq_1_to_4 line on line.seq <= 1 + dice('lines', o.id, 4)
join products p on p.sku = concat('SKU-', lpad(1 + dice('sku', o.id * 10 + line.seq, 400), 5, '0'))
order by o.id, line.seq;

update orders o join (select order_id, sum(quantity * unit_price) as total from order_items group by order_id) i on i.order_id = o.id
set o.total = i.total * 1.1900;

insert into documents (title, body, scan, digest, stored_at)
select concat('Rechnung ', seq), repeat(concat(md5(seq), ' Größe, 크기, 大きさ\n'), 1 + if(seq % 3 = 0, 800, seq % 40)),
    if(seq % 4 > 0, unhex(repeat(md5(concat('scan', seq)), seq)), null), unhex(md5(concat('document', seq))),
    '2024-06-01 00:00:00' + interval dice('stored', seq, 20000000) second
from seq_1_to_120 order by seq;

insert into visits
select if(dice('known', seq, 4) > 0, 1 + dice('visitor', seq, 2000), null), concat('/', elt(1 + dice('page', seq, 4), '', 'tee', '찻잔', 'basket')),
    if(dice('timed', seq, 9) > 0, dice('seconds', seq, 8000) / 8, null), '2024-06-01 00:00:00' + interval dice('at', seq, 20000000) second
from seq_1_to_1000 order by seq;

drop function dice;
